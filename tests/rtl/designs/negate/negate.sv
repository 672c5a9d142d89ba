// to = ~from, a word of WIDTH bits at a time. The inverter has a clock of its own, between two queues; reads go through
// one memory port, several at a time and in order (one ID), writes through another, which has no strobes. The protocol is
// ap_ctrl_chain: the next start waits until the host has seen that the last run is done.
`default_nettype none
module negate #(
    parameter integer WIDTH = 32
) (
    input  wire             ap_clk_2,
    input  wire             ap_rst_n_2,
    input  wire        ap_clk,
    input  wire        ap_rst_n,
    input  wire        s_axi_control_AWVALID,
    output wire        s_axi_control_AWREADY,
    input  wire [11:0] s_axi_control_AWADDR,
    input  wire        s_axi_control_WVALID,
    output wire        s_axi_control_WREADY,
    input  wire [31:0] s_axi_control_WDATA,
    input  wire [ 3:0] s_axi_control_WSTRB,
    output wire        s_axi_control_BVALID,
    input  wire        s_axi_control_BREADY,
    output wire [ 1:0] s_axi_control_BRESP,
    input  wire        s_axi_control_ARVALID,
    output wire        s_axi_control_ARREADY,
    input  wire [11:0] s_axi_control_ARADDR,
    output wire        s_axi_control_RVALID,
    input  wire        s_axi_control_RREADY,
    output wire [31:0] s_axi_control_RDATA,
    output wire [ 1:0] s_axi_control_RRESP,
    output reg              m00_axi_arvalid,
    input  wire             m00_axi_arready,
    output reg  [     63:0] m00_axi_araddr,
    output wire [      7:0] m00_axi_arlen,
    output wire [      1:0] m00_axi_arid,
    input  wire             m00_axi_rvalid,
    output wire             m00_axi_rready,
    input  wire [WIDTH-1:0] m00_axi_rdata,
    input  wire [      1:0] m00_axi_rid,
    input  wire             m00_axi_rlast,
    output reg              m01_axi_awvalid,
    input  wire             m01_axi_awready,
    output reg  [     63:0] m01_axi_awaddr,
    output wire [      7:0] m01_axi_awlen,
    output wire             m01_axi_wvalid,
    input  wire             m01_axi_wready,
    output wire [WIDTH-1:0] m01_axi_wdata,
    output wire             m01_axi_wlast,
    input  wire             m01_axi_bvalid,
    output wire             m01_axi_bready
);
`include "negate.svh"
    localparam REGISTERS = 7;
    wire [32*REGISTERS-1:0] registers;
    wire start;
    reg  done;
    apf_control #(.REGISTERS(REGISTERS), .CHAIN(1)) control (
        .clk(ap_clk), .rst_n(ap_rst_n),
        .awvalid(s_axi_control_AWVALID), .awready(s_axi_control_AWREADY), .awaddr(s_axi_control_AWADDR),
        .wvalid(s_axi_control_WVALID), .wready(s_axi_control_WREADY), .wdata(s_axi_control_WDATA),
        .wstrb(s_axi_control_WSTRB), .bvalid(s_axi_control_BVALID), .bready(s_axi_control_BREADY),
        .bresp(s_axi_control_BRESP), .arvalid(s_axi_control_ARVALID), .arready(s_axi_control_ARREADY),
        .araddr(s_axi_control_ARADDR), .rvalid(s_axi_control_RVALID), .rready(s_axi_control_RREADY),
        .rdata(s_axi_control_RDATA), .rresp(s_axi_control_RRESP),
        .start(start), .done(done), .registers(registers)
    );

    wire [31:0] words = registers[0 +: 32];
    wire [63:0] from = registers[32*2 +: 64], to = registers[32*5 +: 64];
    localparam [63:0] BYTES = WIDTH / 8;

    reg busy;
    reg [31:0] asked, addressed, sent, confirmed;
    reg [ 3:0] pending;  // reads whose word has not come
    wire in_full, middle_empty, middle_ready, out_valid, out_full, result_empty;
    wire [WIDTH-1:0] middle, result_in, result;
    wire [6:0] waiting;

    // A read is begun only if the queue has room for its word.
    wire room = {25'd0, waiting} + {28'd0, pending} < DEPTH - 1 && pending < `NEGATE_IDS;
    assign m00_axi_arlen = 8'd0;
    assign m00_axi_arid = 2'd2;
    assign m00_axi_rready = 1'b1;
    assign m01_axi_awlen = 8'd0;
    assign m01_axi_wvalid = !result_empty && sent < addressed;
    assign m01_axi_wdata = result;
    assign m01_axi_wlast = 1'b1;
    assign m01_axi_bready = 1'b1;
    wire begins = busy && asked != words && room && (!m00_axi_arvalid || m00_axi_arready);
    wire sends = m01_axi_wvalid && m01_axi_wready;

    always @(posedge ap_clk) begin
        done <= 1'b0;
        if (m00_axi_arready) m00_axi_arvalid <= 1'b0;
        if (m01_axi_awready) m01_axi_awvalid <= 1'b0;
        if (!ap_rst_n) begin
            busy <= 1'b0;
            pending <= 4'd0;
            m00_axi_arvalid <= 1'b0;
            m01_axi_awvalid <= 1'b0;
        end else if (start) begin
            busy <= 1'b1;
            {asked, addressed, sent, confirmed} <= 128'd0;
        end else if (busy) begin
            pending <= pending + {3'd0, begins} - {3'd0, m00_axi_rvalid};
            if (begins) begin
                m00_axi_arvalid <= 1'b1;
                m00_axi_araddr <= from + asked * BYTES;
                asked <= asked + 1;
            end
            if (addressed != words && (!m01_axi_awvalid || m01_axi_awready)) begin
                m01_axi_awvalid <= 1'b1;
                m01_axi_awaddr <= to + addressed * BYTES;
                addressed <= addressed + 1;
            end
            if (sends) sent <= sent + 1;
            if (m01_axi_bvalid) confirmed <= confirmed + 1;
            if (confirmed == words) begin
                busy <= 1'b0;
                done <= 1'b1;
            end
        end
    end

    xpm_fifo_async #(
        .FIFO_WRITE_DEPTH(DEPTH), .READ_MODE("fwft"), .READ_DATA_WIDTH(WIDTH), .WRITE_DATA_WIDTH(WIDTH),
        .WR_DATA_COUNT_WIDTH(7), .CDC_SYNC_STAGES(3)
    ) to_inverter (
        .sleep(1'b0), .rst(!ap_rst_n), .wr_clk(ap_clk), .wr_en(m00_axi_rvalid), .din(m00_axi_rdata), .full(in_full),
        .wr_data_count(waiting), .rd_clk(ap_clk_2), .rd_en(middle_ready && !middle_empty), .dout(middle),
        .empty(middle_empty), .injectsbiterr(1'b0), .injectdbiterr(1'b0)
    );
    negator #(.WIDTH(WIDTH)) inverter (
        .clk(ap_clk_2), .rst_n(ap_rst_n_2), .in_valid(!middle_empty), .in_ready(middle_ready), .in(middle),
        .out_valid(out_valid), .out_ready(!out_full), .out(result_in)
    );
    xpm_fifo_async #(
        .FIFO_WRITE_DEPTH(DEPTH), .READ_MODE("fwft"), .READ_DATA_WIDTH(WIDTH), .WRITE_DATA_WIDTH(WIDTH)
    ) from_inverter (
        .sleep(1'b0), .rst(!ap_rst_n_2), .wr_clk(ap_clk_2), .wr_en(out_valid && !out_full), .din(result_in),
        .full(out_full), .rd_clk(ap_clk), .rd_en(sends), .dout(result), .empty(result_empty), .injectsbiterr(1'b0),
        .injectdbiterr(1'b0)
    );
endmodule
`default_nettype wire
