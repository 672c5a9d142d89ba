"""What the accelerators of one open device share: the device itself, and arrays that stay in its memory."""
