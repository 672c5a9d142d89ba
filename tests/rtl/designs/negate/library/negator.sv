// Found by -y: the part that has a clock of its own.
`default_nettype none
module negator #(
    parameter integer WIDTH = 32
) (
    input  wire             clk,
    input  wire             rst_n,
    input  wire             in_valid,
    output wire             in_ready,
    input  wire [WIDTH-1:0] in,
    output reg              out_valid,
    input  wire             out_ready,
    output reg  [WIDTH-1:0] out
);
    assign in_ready = !out_valid || out_ready;
    always @(posedge clk)
        if (!rst_n) out_valid <= 1'b0;
        else if (in_ready) begin
            out_valid <= in_valid;
`ifdef NEGATE
            out <= ~in;
`else
            out <= in;
`endif
        end
endmodule
`default_nettype wire
