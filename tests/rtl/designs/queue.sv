// Puts at most 16 words of a stream into a vendor's FIFO, and reports: its writer's flags and count, then before each word
// that it takes out, and after the last, its reader's flags and count. Flags are in the upper half of such a word.
`default_nettype none
module queue #(
    parameter integer ASYNC = 0,
    parameter integer STD = 0
) (
    input  wire        ap_clk,
    input  wire        ap_rst_n,
    input  wire        s_axis_in_tvalid,
    output wire        s_axis_in_tready,
    input  wire [31:0] s_axis_in_tdata,
    input  wire        s_axis_in_tlast,
    output reg         m_axis_out_tvalid,
    input  wire        m_axis_out_tready,
    output reg  [31:0] m_axis_out_tdata,
    output reg         m_axis_out_tlast
);
    localparam MODE = STD != 0 ? "std" : "fwft";
    localparam [2:0] FILL = 0, SETTLE = 1, WRITER = 2, READER = 3, TAKE = 4, WAIT = 5;
    reg [2:0] state, after;
    reg [3:0] timer;  // the flags of the other clock follow within 16 cycles
    wire full, almost_full, prog_full, empty, almost_empty, prog_empty, data_valid;
    wire [4:0] wr_count, rd_count;
    wire [31:0] dout;
    wire free = !m_axis_out_tvalid || m_axis_out_tready;
    wire puts = s_axis_in_tvalid && s_axis_in_tready;
    wire takes = state == TAKE && free;
    assign s_axis_in_tready = state == FILL && !full;

    always @(posedge ap_clk)
        if (!ap_rst_n) begin
            state <= FILL;
            m_axis_out_tvalid <= 1'b0;
        end else begin
            if (m_axis_out_tready) m_axis_out_tvalid <= 1'b0;
            timer <= timer + 4'd1;
            case (state)
                FILL:
                    if (puts && s_axis_in_tlast) begin
                        state <= SETTLE;
                        after <= WRITER;
                        timer <= 4'd0;
                    end
                SETTLE: if (timer == 4'd15) state <= after;
                WRITER:
                    if (free) begin
                        m_axis_out_tvalid <= 1'b1;
                        m_axis_out_tdata <= {13'd0, prog_full, almost_full, full, 11'd0, wr_count};
                        m_axis_out_tlast <= 1'b0;
                        state <= READER;
                    end
                READER:
                    if (free) begin
                        m_axis_out_tvalid <= 1'b1;
                        m_axis_out_tdata <= {13'd0, prog_empty, almost_empty, empty, 11'd0, rd_count};
                        m_axis_out_tlast <= empty;
                        state <= empty ? FILL : TAKE;
                    end
                TAKE:
                    if (free) begin
                        m_axis_out_tvalid <= STD == 0;
                        m_axis_out_tdata <= dout;
                        m_axis_out_tlast <= 1'b0;
                        state <= STD != 0 ? WAIT : SETTLE;
                        after <= READER;
                        timer <= 4'd0;
                    end
                default:
                    if (data_valid) begin
                        m_axis_out_tvalid <= 1'b1;
                        m_axis_out_tdata <= dout;
                        state <= SETTLE;
                        timer <= 4'd0;
                    end
            endcase
        end

    generate
        if (ASYNC != 0) begin : two
            xpm_fifo_async #(
                .FIFO_WRITE_DEPTH(16), .READ_MODE(MODE), .READ_DATA_WIDTH(32), .WRITE_DATA_WIDTH(32),
                .WR_DATA_COUNT_WIDTH(5), .RD_DATA_COUNT_WIDTH(5), .PROG_FULL_THRESH(10), .PROG_EMPTY_THRESH(4)
            ) fifo (
                .sleep(1'b0), .rst(!ap_rst_n), .wr_clk(ap_clk), .rd_clk(ap_clk), .wr_en(puts), .din(s_axis_in_tdata),
                .full(full), .almost_full(almost_full), .prog_full(prog_full), .wr_data_count(wr_count), .rd_en(takes),
                .dout(dout), .empty(empty), .almost_empty(almost_empty), .prog_empty(prog_empty),
                .rd_data_count(rd_count), .data_valid(data_valid), .injectsbiterr(1'b0), .injectdbiterr(1'b0)
            );
        end else begin : one
            xpm_fifo_sync #(
                .FIFO_WRITE_DEPTH(16), .READ_MODE(MODE), .READ_DATA_WIDTH(32), .WRITE_DATA_WIDTH(32),
                .WR_DATA_COUNT_WIDTH(5), .RD_DATA_COUNT_WIDTH(5), .PROG_FULL_THRESH(10), .PROG_EMPTY_THRESH(4)
            ) fifo (
                .sleep(1'b0), .rst(!ap_rst_n), .wr_clk(ap_clk), .wr_en(puts), .din(s_axis_in_tdata), .full(full),
                .almost_full(almost_full), .prog_full(prog_full), .wr_data_count(wr_count), .rd_en(takes), .dout(dout),
                .empty(empty), .almost_empty(almost_empty), .prog_empty(prog_empty), .rd_data_count(rd_count),
                .data_valid(data_valid), .injectsbiterr(1'b0), .injectdbiterr(1'b0)
            );
        end
    endgenerate
endmodule
`default_nettype wire
