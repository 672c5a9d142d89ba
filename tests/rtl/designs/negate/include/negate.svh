// Found by +incdir+.
localparam integer DEPTH = 64;  // words in each queue
