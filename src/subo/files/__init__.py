"""Files: written whole or not at all, locked, digested, and read back without trust."""
