"""What every program needs and no model is made of: seeds, devices, memory, signals, progress, checked arguments."""
