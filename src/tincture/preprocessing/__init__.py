"""Pictures as they are found -> pictures to train on: crops, mirrored copies, captions, two folders for validation."""
