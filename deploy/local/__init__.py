"""The whole mesh on one machine (``deploy.local.mesh``): starts it, watches over it, stops it."""
