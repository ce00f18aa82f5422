const GROUP = 128u;
