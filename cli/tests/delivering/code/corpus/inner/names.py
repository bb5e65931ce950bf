NAME = "of-the-inner-package"
