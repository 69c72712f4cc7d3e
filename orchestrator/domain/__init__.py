"""What a purchase is and what happens next in it. Pure: no I/O, no clock."""
