//! The default imagespec builder: an engine on this machine.
