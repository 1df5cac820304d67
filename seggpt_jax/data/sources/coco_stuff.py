"""COCO-Stuff (164k): 80 things and 91 stuff classes on the images of COCO 2017."""
