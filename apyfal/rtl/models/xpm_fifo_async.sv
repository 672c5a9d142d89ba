// apyfal's model of AMD's macro xpm_fifo_async (UG974), with a clock on each side: both read modes, flags, counts. Words have the same
// width on both sides and there is no error correction. The latencies are the shortest ones: a design that is right only
// with the exact latency of the macro needs the vendor's own model among its sources, which is then used instead.
`default_nettype none
module xpm_fifo_async #(
    parameter integer CASCADE_HEIGHT = 0,
    parameter integer CDC_SYNC_STAGES = 2,
    parameter         DOUT_RESET_VALUE = "0",
    parameter         ECC_MODE = "no_ecc",
    parameter         FIFO_MEMORY_TYPE = "auto",
    parameter integer FIFO_READ_LATENCY = 1,
    parameter integer FIFO_WRITE_DEPTH = 2048,
    parameter integer FULL_RESET_VALUE = 0,
    parameter integer PROG_EMPTY_THRESH = 10,
    parameter integer PROG_FULL_THRESH = 10,
    parameter integer RD_DATA_COUNT_WIDTH = 1,
    parameter integer READ_DATA_WIDTH = 32,
    parameter         READ_MODE = "std",
    parameter integer RELATED_CLOCKS = 0,
    parameter integer SIM_ASSERT_CHK = 0,
    parameter         USE_ADV_FEATURES = "0707",
    parameter integer WAKEUP_TIME = 0,
    parameter integer WRITE_DATA_WIDTH = 32,
    parameter integer WR_DATA_COUNT_WIDTH = 1
) (
    input  wire                           sleep,
    input  wire                           rst,
    input  wire                           wr_clk,
    input  wire                           wr_en,
    input  wire [WRITE_DATA_WIDTH-1:0]    din,
    output wire                           full,
    output wire                           almost_full,
    output wire                           prog_full,
    output wire [WR_DATA_COUNT_WIDTH-1:0] wr_data_count,
    output wire                           wr_ack,
    output wire                           overflow,
    output wire                           wr_rst_busy,
    input  wire                           rd_clk,
    input  wire                           rd_en,
    output wire [READ_DATA_WIDTH-1:0]     dout,
    output wire                           empty,
    output wire                           almost_empty,
    output wire                           prog_empty,
    output wire [RD_DATA_COUNT_WIDTH-1:0] rd_data_count,
    output wire                           data_valid,
    output wire                           underflow,
    output wire                           rd_rst_busy,
    input  wire                           injectsbiterr,
    input  wire                           injectdbiterr,
    output wire                           sbiterr,
    output wire                           dbiterr
);
    localparam integer COUNT = $clog2(FIFO_WRITE_DEPTH) + 1;
    wire [COUNT-1:0] wr_count, rd_count;
    generate
        if (READ_DATA_WIDTH != WRITE_DATA_WIDTH)
            $error("xpm_fifo_async: READ_DATA_WIDTH differs from WRITE_DATA_WIDTH, which apyfal's model does not have");
        if (ECC_MODE != "no_ecc") $error("xpm_fifo_async: apyfal's model has ECC_MODE no_ecc alone");
        if (FIFO_WRITE_DEPTH < 16 || (FIFO_WRITE_DEPTH & (FIFO_WRITE_DEPTH - 1)) != 0)
            $error("xpm_fifo_async: FIFO_WRITE_DEPTH has to be a power of two from 16 on");
        if (READ_MODE != "fwft" && (READ_MODE != "std" || FIFO_READ_LATENCY != 1))
            $error("xpm_fifo_async: apyfal's model has READ_MODE fwft, and std with FIFO_READ_LATENCY 1");
    endgenerate
    assign wr_data_count = WR_DATA_COUNT_WIDTH'(wr_count);
    assign rd_data_count = RD_DATA_COUNT_WIDTH'(rd_count);
    assign sbiterr = 1'b0;
    assign dbiterr = 1'b0;

    apf_fifo #(
        .DEPTH(FIFO_WRITE_DEPTH), .WIDTH(WRITE_DATA_WIDTH), .STAGES(CDC_SYNC_STAGES),
        .FIRST_WORD(READ_MODE == "fwft" ? 1 : 0), .FULL_THRESH(PROG_FULL_THRESH), .EMPTY_THRESH(PROG_EMPTY_THRESH)
    ) fifo (
        .rst(rst), .wr_clk(wr_clk), .wr_en(wr_en && !sleep), .din(din), .full(full), .almost_full(almost_full),
        .prog_full(prog_full), .wr_count(wr_count), .wr_ack(wr_ack), .overflow(overflow), .wr_busy(wr_rst_busy),
        .rd_clk(rd_clk), .rd_en(rd_en && !sleep), .dout(dout), .empty(empty), .almost_empty(almost_empty),
        .prog_empty(prog_empty), .rd_count(rd_count), .data_valid(data_valid), .underflow(underflow),
        .rd_busy(rd_rst_busy)
    );
endmodule
`default_nettype wire
