const GROUP = 64u;
