// scale: a * x + b for every element of a buffer, modulo the element's width; integers of 8 to 64 bits.
//
// 0x10 : Data signal of src
//        bit 31~0 - src[31:0] (Read/Write)
// 0x14 : Data signal of src
//        bit 31~0 - src[63:32] (Read/Write)
// 0x1c : Data signal of dst
//        bit 31~0 - dst[31:0] (Read/Write)
// 0x20 : Data signal of dst
//        bit 31~0 - dst[63:32] (Read/Write)
// 0x28 : Data signal of count
//        bit 31~0 - count[31:0] (Read/Write)
// 0x2c : Data signal of count
//        bit 31~0 - count[63:32] (Read/Write)
// 0x34 : Data signal of a
//        bit 31~0 - a[31:0] (Read/Write)
// 0x38 : Data signal of a
//        bit 31~0 - a[63:32] (Read/Write)
// 0x40 : Data signal of b
//        bit 31~0 - b[31:0] (Read/Write)
// 0x44 : Data signal of b
//        bit 31~0 - b[63:32] (Read/Write)
// 0x4c : Data signal of dtype
//        bit 31~0 - dtype[31:0] (Read/Write)
`default_nettype none
module scale (
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
    output reg         m_axi_gmem_AWVALID,
    input  wire        m_axi_gmem_AWREADY,
    output reg  [63:0] m_axi_gmem_AWADDR,
    output reg  [ 7:0] m_axi_gmem_AWLEN,
    output wire [ 2:0] m_axi_gmem_AWSIZE,
    output wire [ 1:0] m_axi_gmem_AWBURST,
    output wire        m_axi_gmem_WVALID,
    input  wire        m_axi_gmem_WREADY,
    output wire [63:0] m_axi_gmem_WDATA,
    output wire [ 7:0] m_axi_gmem_WSTRB,
    output wire        m_axi_gmem_WLAST,
    input  wire        m_axi_gmem_BVALID,
    output wire        m_axi_gmem_BREADY,
    input  wire [ 1:0] m_axi_gmem_BRESP,
    output reg         m_axi_gmem_ARVALID,
    input  wire        m_axi_gmem_ARREADY,
    output reg  [63:0] m_axi_gmem_ARADDR,
    output reg  [ 7:0] m_axi_gmem_ARLEN,
    output wire [ 2:0] m_axi_gmem_ARSIZE,
    output wire [ 1:0] m_axi_gmem_ARBURST,
    input  wire        m_axi_gmem_RVALID,
    output wire        m_axi_gmem_RREADY,
    input  wire [63:0] m_axi_gmem_RDATA,
    input  wire        m_axi_gmem_RLAST,
    input  wire [ 1:0] m_axi_gmem_RRESP
);
    wire [511:0] registers;
    wire         start;
    reg          done;

    apf_control #(.REGISTERS(16)) control (
        .clk(ap_clk), .rst_n(ap_rst_n),
        .awvalid(s_axi_control_AWVALID), .awready(s_axi_control_AWREADY), .awaddr(s_axi_control_AWADDR),
        .wvalid(s_axi_control_WVALID), .wready(s_axi_control_WREADY), .wdata(s_axi_control_WDATA),
        .wstrb(s_axi_control_WSTRB),
        .bvalid(s_axi_control_BVALID), .bready(s_axi_control_BREADY), .bresp(s_axi_control_BRESP),
        .arvalid(s_axi_control_ARVALID), .arready(s_axi_control_ARREADY), .araddr(s_axi_control_ARADDR),
        .rvalid(s_axi_control_RVALID), .rready(s_axi_control_RREADY), .rdata(s_axi_control_RDATA),
        .rresp(s_axi_control_RRESP),
        .start(start), .done(done), .registers(registers)
    );

    // Registers by their offset from 0x10, in words.
    wire [63:0] src = registers[32*0 +: 64];
    wire [63:0] dst = registers[32*3 +: 64];
    wire [63:0] count = registers[32*6 +: 64];
    wire [63:0] a = registers[32*9 +: 64];
    wire [63:0] b = registers[32*12 +: 64];
    wire [31:0] dtype = registers[32*15 +: 32];
    wire [ 1:0] width = (dtype - 32'd1) >> 1;  // log2 of the element's bytes

    assign m_axi_gmem_ARSIZE = 3'd3;
    assign m_axi_gmem_ARBURST = 2'd1;
    assign m_axi_gmem_AWSIZE = 3'd3;
    assign m_axi_gmem_AWBURST = 2'd1;

    localparam IDLE = 0, NEXT = 1, READ = 2, WRITE = 3, ANSWER = 4;
    reg [ 2:0] state;
    reg [63:0] from, to, left;  // card addresses, bytes
    reg [63:0] data [32];
    reg [ 5:0] received, sent;
    reg [ 8:0] bytes;  // of this burst: 1 to 256

    // Of one burst: up to 256 bytes, which cross no 4 KiB boundary on either side.
    wire [12:0] to_boundary_from = 13'd4096 - {1'b0, from[11:0]};
    wire [12:0] to_boundary_to = 13'd4096 - {1'b0, to[11:0]};
    wire [12:0] boundary = to_boundary_from < to_boundary_to ? to_boundary_from : to_boundary_to;
    wire [12:0] longest = boundary < 13'd256 ? boundary : 13'd256;
    wire [12:0] now = left < {51'd0, longest} ? left[12:0] : longest;
    wire [ 5:0] beats = now[8:3] + {5'd0, now[2:0] != 3'd0};
    wire [ 5:0] burst_beats = bytes[8:3] + {5'd0, bytes[2:0] != 3'd0};

    function automatic [63:0] scaled(input [63:0] x);
        integer i;
        case (width)
            2'd0: for (i = 0; i < 8; i = i + 1) scaled[8*i +: 8] = x[8*i +: 8] * a[7:0] + b[7:0];
            2'd1: for (i = 0; i < 4; i = i + 1) scaled[16*i +: 16] = x[16*i +: 16] * a[15:0] + b[15:0];
            2'd2: for (i = 0; i < 2; i = i + 1) scaled[32*i +: 32] = x[32*i +: 32] * a[31:0] + b[31:0];
            default: scaled = x * a + b;
        endcase
    endfunction

    assign m_axi_gmem_RREADY = state == READ;
    assign m_axi_gmem_WVALID = state == WRITE && sent != burst_beats;
    assign m_axi_gmem_WDATA = data[sent[4:0]];
    assign m_axi_gmem_WLAST = sent + 6'd1 == burst_beats;
    assign m_axi_gmem_WSTRB = m_axi_gmem_WLAST && bytes[2:0] != 3'd0 ? 8'hFF >> (4'd8 - {1'b0, bytes[2:0]}) : 8'hFF;
    assign m_axi_gmem_BREADY = state == ANSWER;

    always @(posedge ap_clk) begin
        done <= 1'b0;
        if (!ap_rst_n) begin
            state <= IDLE;
            m_axi_gmem_ARVALID <= 1'b0;
            m_axi_gmem_AWVALID <= 1'b0;
        end else begin
            if (m_axi_gmem_ARVALID && m_axi_gmem_ARREADY) m_axi_gmem_ARVALID <= 1'b0;
            if (m_axi_gmem_AWVALID && m_axi_gmem_AWREADY) m_axi_gmem_AWVALID <= 1'b0;
            case (state)
                IDLE: if (start) begin
                    from <= src;
                    to <= dst;
                    left <= count << width;
                    state <= NEXT;
                end
                NEXT: if (left == 64'd0) begin
                    done <= 1'b1;
                    state <= IDLE;
                end else begin
                    m_axi_gmem_ARVALID <= 1'b1;
                    m_axi_gmem_ARADDR <= from;
                    m_axi_gmem_ARLEN <= {2'd0, beats} - 8'd1;
                    bytes <= now[8:0];
                    received <= 6'd0;
                    sent <= 6'd0;
                    state <= READ;
                end
                READ: if (m_axi_gmem_RVALID) begin
                    data[received[4:0]] <= scaled(m_axi_gmem_RDATA);
                    received <= received + 6'd1;
                    if (received + 6'd1 == burst_beats) begin
                        m_axi_gmem_AWVALID <= 1'b1;
                        m_axi_gmem_AWADDR <= to;
                        m_axi_gmem_AWLEN <= {2'd0, burst_beats} - 8'd1;
                        state <= WRITE;
                    end
                end
                WRITE: begin
                    if (m_axi_gmem_WVALID && m_axi_gmem_WREADY) sent <= sent + 6'd1;
                    if (sent == burst_beats && !m_axi_gmem_AWVALID) state <= ANSWER;
                end
                ANSWER: if (m_axi_gmem_BVALID) begin
                    from <= from + {55'd0, bytes};
                    to <= to + {55'd0, bytes};
                    left <= left - {55'd0, bytes};
                    state <= NEXT;
                end
                default: state <= IDLE;
            endcase
        end
    end
endmodule
`default_nettype wire
