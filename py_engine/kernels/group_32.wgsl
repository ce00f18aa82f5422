const GROUP = 32u;
