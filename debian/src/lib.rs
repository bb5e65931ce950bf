//! Debian for imagespec: a verified archive, package closures, layers, and a base image without an image.
