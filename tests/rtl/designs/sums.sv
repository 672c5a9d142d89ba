// c = a + b for two streams of 32-bit integers, which have neither TLAST nor TKEEP.
`default_nettype none
module sums (
    input  wire        ap_clk,
    input  wire        ap_rst_n,
    input  wire        a_tvalid,
    output wire        a_tready,
    input  wire [31:0] a_tdata,
    input  wire        b_tvalid,
    output wire        b_tready,
    input  wire [31:0] b_tdata,
    output wire        c_tvalid,
    input  wire        c_tready,
    output wire [31:0] c_tdata
);
    wire full, empty;
    wire moves = a_tvalid && b_tvalid && !full;
    assign a_tready = moves;
    assign b_tready = moves;
    assign c_tvalid = !empty;
    xpm_fifo_sync #(
        .FIFO_WRITE_DEPTH(16), .READ_MODE("fwft"), .READ_DATA_WIDTH(32), .WRITE_DATA_WIDTH(32)
    ) queue (
        .sleep(1'b0), .rst(!ap_rst_n), .wr_clk(ap_clk), .wr_en(moves), .din(a_tdata + b_tdata), .full(full),
        .rd_en(c_tready && !empty), .dout(c_tdata), .empty(empty), .injectsbiterr(1'b0), .injectdbiterr(1'b0)
    );
endmodule
`default_nettype wire
