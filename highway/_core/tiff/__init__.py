"""Messages of the libtiff that PIL is linked with."""
