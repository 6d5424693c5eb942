"""From a folder of pictures to batches of latents and prompts.

A `Source` is a folder that a run names, a `Listing` what lies in it: a `PictureFile` each, which may be a picture. What
can be used of them becomes a `Sample`, a picture as it is trained, and all samples together a `PictureDataset`. A mask
is a grey picture of what is to be learned, be it a file of its own or an alpha channel; weights are what the loss makes
of it.
"""
