"""Where a head looked: Grad-CAM and occlusion, as arrays and as pictures."""
