"""What every service of Bookmesh shares. Knows no service and no business rule."""
