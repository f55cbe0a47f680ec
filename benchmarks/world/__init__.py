"""A made-up world for the core on virtual time: the mock's power unit, cars, EVerest, and the log of it all."""
