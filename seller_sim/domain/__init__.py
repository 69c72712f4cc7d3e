"""What a simulated seller decides, without a wire, a disk or a clock."""
