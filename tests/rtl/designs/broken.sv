// A source with an error in its third line.
module broken (input wire ap_clk);
    wire [3:0 x;
endmodule
