"""What a run learned, to look at and to touch: one page that opens anywhere, or is served beside the live model."""
