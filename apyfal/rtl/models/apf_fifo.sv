// The queue behind xpm_fifo_sync and xpm_fifo_async. A word that was written is seen by the reader STAGES cycles of its
// clock later, and the room of a word that was read STAGES cycles of the writer's clock later.
`default_nettype none
module apf_fifo #(
    parameter integer DEPTH = 16,
    parameter integer WIDTH = 32,
    parameter integer STAGES = 0,
    parameter integer FIRST_WORD = 1,  // 1: dout is the next word; 0: the word that the last rd_en took
    parameter integer FULL_THRESH = 10,
    parameter integer EMPTY_THRESH = 10,
    parameter integer COUNT_WIDTH = $clog2(DEPTH) + 1
) (
    input  wire                   rst,  // of wr_clk
    input  wire                   wr_clk,
    input  wire                   wr_en,
    input  wire [WIDTH-1:0]       din,
    output wire                   full,
    output wire                   almost_full,
    output wire                   prog_full,
    output wire [COUNT_WIDTH-1:0] wr_count,
    output reg                    wr_ack,
    output reg                    overflow,
    output wire                   wr_busy,
    input  wire                   rd_clk,
    input  wire                   rd_en,
    output wire [WIDTH-1:0]       dout,
    output wire                   empty,
    output wire                   almost_empty,
    output wire                   prog_empty,
    output wire [COUNT_WIDTH-1:0] rd_count,
    output wire                   data_valid,
    output reg                    underflow,
    output wire                   rd_busy
);
    localparam integer BITS = $clog2(DEPTH);
    reg [WIDTH-1:0] words [DEPTH];
    reg [BITS:0] written = 0, taken = 0;  // one bit more than an index: they are equal only if the queue is empty
    wire [BITS:0] written_there, taken_there;
    wire rd_rst;

    apf_fifo_crossing #(.WIDTH(BITS + 1), .STAGES(STAGES)) to_reader (
        .clk(rd_clk), .in(written), .out(written_there)
    );
    apf_fifo_crossing #(.WIDTH(BITS + 1), .STAGES(STAGES)) to_writer (.clk(wr_clk), .in(taken), .out(taken_there));
    apf_fifo_crossing #(.WIDTH(1), .STAGES(STAGES)) reset (.clk(rd_clk), .in(rst), .out(rd_rst));

    wire [BITS:0] held = written - taken_there;
    wire [BITS:0] there = written_there - taken;
    // The macro refuses words while it is reset and a cycle longer.
    reg was_reset = 1'b1;
    assign wr_busy = rst || was_reset;
    assign rd_busy = rd_rst;
    assign full = wr_busy || held == DEPTH[BITS:0];
    assign almost_full = wr_busy || held >= DEPTH[BITS:0] - 1'b1;
    assign prog_full = wr_busy || held >= FULL_THRESH[BITS:0];
    assign wr_count = COUNT_WIDTH'(held);
    assign empty = rd_rst || there == 0;
    assign almost_empty = rd_rst || there <= 1;
    assign prog_empty = rd_rst || there <= EMPTY_THRESH[BITS:0];
    assign rd_count = COUNT_WIDTH'(there);

    wire puts = wr_en && !full;
    wire takes = rd_en && !empty;
    always @(posedge wr_clk) begin
        was_reset <= rst;
        wr_ack <= puts;
        overflow <= wr_en && full;
        if (rst) written <= 0;
        else if (puts) begin
            words[written[BITS-1:0]] <= din;
            written <= written + 1'b1;
        end
    end

    reg [WIDTH-1:0] last = 0;
    reg last_valid = 1'b0;
    always @(posedge rd_clk) begin
        underflow <= rd_en && empty;
        last_valid <= takes;
        if (takes) last <= words[taken[BITS-1:0]];
        if (rd_rst) taken <= 0;
        else if (takes) taken <= taken + 1'b1;
    end
    assign dout = FIRST_WORD != 0 ? words[taken[BITS-1:0]] : last;
    assign data_valid = FIRST_WORD != 0 ? !empty : last_valid;
endmodule

module apf_fifo_crossing #(
    parameter integer WIDTH = 1,
    parameter integer STAGES = 0
) (
    input  wire             clk,
    input  wire [WIDTH-1:0] in,
    output wire [WIDTH-1:0] out
);
    generate
        if (STAGES == 0) begin : same_clock
            assign out = in;
        end else begin : other_clock
            reg [WIDTH-1:0] stage [STAGES];
            integer i;
            always @(posedge clk) begin
                stage[0] <= in;
                for (i = 1; i < STAGES; i = i + 1) stage[i] <= stage[i-1];
            end
            assign out = stage[STAGES-1];
        end
    endgenerate
endmodule
`default_nettype wire
