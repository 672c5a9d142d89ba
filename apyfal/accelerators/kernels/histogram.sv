// histogram: how many elements fall into each of `bins` equal parts of lo to hi, as 64-bit counts.
//
// What numpy computes with rounded edges is exact here, with integers alone, because of what the kernel asks for: elements
// are integers of up to 32 bits, `bins` is a power of two up to 4096, lo and hi are integers, and hi - lo is a power of
// two.
//
// 0x10 : Data signal of src
//        bit 31~0 - src[31:0] (Read/Write)
// 0x14 : Data signal of src
// 0x1c : Data signal of dst
// 0x20 : Data signal of dst
// 0x28 : Data signal of count
// 0x2c : Data signal of count
// 0x34 : Data signal of state
// 0x38 : Data signal of state
// 0x40 : Data signal of first
// 0x48 : Data signal of last
// 0x50 : Data signal of bins
// 0x58 : Data signal of dtype
// 0x60 : Data signal of lo
// 0x64 : Data signal of lo
// 0x6c : Data signal of hi
// 0x70 : Data signal of hi
`default_nettype none
module histogram (
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
    output wire         m_axi_gmem_AWVALID,
    input  wire         m_axi_gmem_AWREADY,
    output wire [ 63: 0] m_axi_gmem_AWADDR,
    output wire [  7: 0] m_axi_gmem_AWLEN,
    output wire         m_axi_gmem_WVALID,
    input  wire         m_axi_gmem_WREADY,
    output wire [ 63: 0] m_axi_gmem_WDATA,
    output wire [  7: 0] m_axi_gmem_WSTRB,
    output wire         m_axi_gmem_WLAST,
    input  wire         m_axi_gmem_BVALID,
    output wire         m_axi_gmem_BREADY,
    output wire         m_axi_gmem_ARVALID,
    input  wire         m_axi_gmem_ARREADY,
    output wire [ 63: 0] m_axi_gmem_ARADDR,
    output wire [  7: 0] m_axi_gmem_ARLEN,
    input  wire         m_axi_gmem_RVALID,
    output wire         m_axi_gmem_RREADY,
    input  wire [ 63: 0] m_axi_gmem_RDATA,
    input  wire         m_axi_gmem_RLAST
);
    localparam REGISTERS = 25;
    wire [32*REGISTERS-1:0] registers;
    wire start;
    reg  done;
    apf_control #(.REGISTERS(REGISTERS)) control (
        .clk(ap_clk), .rst_n(ap_rst_n),
        .awvalid(s_axi_control_AWVALID), .awready(s_axi_control_AWREADY), .awaddr(s_axi_control_AWADDR),
        .wvalid(s_axi_control_WVALID), .wready(s_axi_control_WREADY), .wdata(s_axi_control_WDATA),
        .wstrb(s_axi_control_WSTRB), .bvalid(s_axi_control_BVALID), .bready(s_axi_control_BREADY),
        .bresp(s_axi_control_BRESP), .arvalid(s_axi_control_ARVALID), .arready(s_axi_control_ARREADY),
        .araddr(s_axi_control_ARADDR), .rvalid(s_axi_control_RVALID), .rready(s_axi_control_RREADY),
        .rdata(s_axi_control_RDATA), .rresp(s_axi_control_RRESP),
        .start(start), .done(done), .registers(registers)
    );

    // Registers by their offset from 0x10, in words.
    wire [63:0] src = registers[32*0 +: 64], dst = registers[32*3 +: 64], count = registers[32*6 +: 64];
    wire [63:0] state_at = registers[32*9 +: 64];
    wire        first = registers[32*12 +: 32] != 0, last = registers[32*14 +: 32] != 0;
    wire [31:0] parts = registers[32*16 +: 32], dtype = registers[32*18 +: 32];
    wire [63:0] lo_bits = registers[32*20 +: 64], hi_bits = registers[32*23 +: 64];
    wire [31:0] code = dtype - 32'd1;
    wire [ 1:0] width = code[2:1];  // log2 of the element's bytes
    wire        is_signed = !code[0];

    // A double as an integer: {it is one, its value}.
    function automatic [66:0] integer_of(input [63:0] bits);
        reg [10:0] exponent;
        reg [116:0] scaled, whole;
        begin
            exponent = bits[62:52] - 11'd1023;
            scaled = {64'd0, 1'b1, bits[51:0]} << (exponent[6:0] & 7'h7F);
            whole = scaled >> 52;
            if (bits[62:0] == 63'd0) integer_of = {1'b1, 66'd0};
            else begin
                integer_of[66] = exponent <= 11'd64 && scaled[51:0] == 52'd0;
                integer_of[65:0] = bits[63] ? -whole[65:0] : whole[65:0];
            end
        end
    endfunction
    function automatic [6:0] log2(input [65:0] value);
        integer i;
        begin
            log2 = 7'd0;
            for (i = 0; i < 66; i = i + 1) if (value[i]) log2 = i[6:0];
        end
    endfunction
    wire [66:0] low = integer_of(lo_bits), high = integer_of(hi_bits);
    wire [65:0] span = high[65:0] - low[65:0];
    wire can = parts != 0 && parts <= 32'd4096 && (parts & (parts - 32'd1)) == 0 && low[66] && high[66] && !span[65] &&
               span != 0 && (span & (span - 66'd1)) == 0 && code < 32'd6;
    wire [6:0] span_log = log2(span), parts_log = log2({34'd0, parts});

    localparam IDLE = 0, CLEAR = 1, PLAN = 2, READ = 3, COUNT = 4, WRITE = 5, ANSWER = 6;
    localparam LOAD = 0, INPUT = 1, STORE = 2;
    reg [ 2:0] step;
    reg [ 1:0] phase;
    reg [63:0] at, left;     // card address and bytes of what this phase moves
    reg [12:0] slot;         // of the counts
    reg [63:0] counts [4096];
    reg [ 8:0] todo;         // bytes of this burst that are to come
    reg [63:0] word;
    reg [ 2:0] lane;

    wire [12:0] to_boundary = 13'd4096 - {1'b0, at[11:0]};
    wire [12:0] longest = to_boundary < 13'd256 ? to_boundary : 13'd256;
    wire [12:0] now = left < {51'd0, longest} ? left[12:0] : longest;
    wire [12:0] beats = (now + 13'd7) >> 3;

    reg ar_valid, aw_valid;
    reg [63:0] address;
    reg [ 7:0] length;
    assign m_axi_gmem_ARVALID = ar_valid;
    assign m_axi_gmem_AWVALID = aw_valid;
    assign m_axi_gmem_ARADDR = address;
    assign m_axi_gmem_AWADDR = address;
    assign m_axi_gmem_ARLEN = length;
    assign m_axi_gmem_AWLEN = length;
    assign m_axi_gmem_RREADY = step == READ;
    assign m_axi_gmem_WVALID = step == WRITE;
    assign m_axi_gmem_WDATA = counts[slot[11:0]];
    assign m_axi_gmem_WSTRB = 8'hFF;
    assign m_axi_gmem_WLAST = todo == 9'd8;
    assign m_axi_gmem_BREADY = step == ANSWER;

    // The bin of the element at `lane`.
    wire [63:0] shifted = word >> {lane, 3'd0};
    wire [ 5:0] unused = 6'd63 - (6'd8 << width) + 6'd1;  // bits above the element
    wire [63:0] top = shifted << unused;
    wire [65:0] element = is_signed ? {{2{top[63]}}, $unsigned($signed(top) >>> unused)} : {2'b00, top >> unused};
    wire [65:0] distance = element - low[65:0];
    wire counted = !distance[65] && distance <= span;
    wire [65:0] scaled = span_log >= parts_log ? distance >> (span_log - parts_log) : distance << (parts_log - span_log);
    wire [11:0] part = distance == span ? parts[11:0] - 12'd1 : scaled[11:0];
    wire [ 3:0] size = 4'd1 << width;

    always @(posedge ap_clk) begin
        done <= 1'b0;
        if (m_axi_gmem_ARREADY) ar_valid <= 1'b0;
        if (m_axi_gmem_AWREADY) aw_valid <= 1'b0;
        if (!ap_rst_n) begin
            step <= IDLE;
            ar_valid <= 1'b0;
            aw_valid <= 1'b0;
        end else case (step)
            IDLE: if (start) begin
`ifndef SYNTHESIS
                if (!can) begin
                    $display("bins = %0d: this histogram counts integers of up to 32 bits, in a power of two of bins", parts);
                    $fatal(0, "expected up to 4096 bins, and a range between integers that is a power of two wide");
                end
`endif
                slot <= 0;
                if (first) step <= CLEAR;
                else begin
                    phase <= LOAD;
                    at <= state_at;
                    left <= {29'd0, parts, 3'd0};
                    step <= PLAN;
                end
            end
            CLEAR: begin
                counts[slot[11:0]] <= 64'd0;
                slot <= slot + 13'd1;
                if ({19'd0, slot} + 32'd1 == parts) begin
                    phase <= INPUT;
                    at <= src;
                    left <= count << width;
                    step <= PLAN;
                end
            end
            PLAN: if (left == 64'd0)
                case (phase)
                    LOAD: begin
                        phase <= INPUT;
                        at <= src;
                        left <= count << width;
                    end
                    INPUT: begin
                        phase <= STORE;
                        at <= last ? dst : state_at;
                        left <= {29'd0, parts, 3'd0};
                        slot <= 0;
                    end
                    default: begin
                        done <= 1'b1;
                        step <= IDLE;
                    end
                endcase
            else begin
                address <= at;
                length <= beats[7:0] - 8'd1;
                todo <= now[8:0];
                if (phase == STORE) aw_valid <= 1'b1;
                else ar_valid <= 1'b1;
                step <= phase == STORE ? WRITE : READ;
                at <= at + {51'd0, now};
                left <= left - {51'd0, now};
            end
            READ: if (m_axi_gmem_RVALID) begin
                word <= m_axi_gmem_RDATA;
                lane <= 3'd0;
                if (phase == LOAD) begin
                    counts[slot[11:0]] <= m_axi_gmem_RDATA;
                    slot <= slot + 13'd1;
                    todo <= todo - 9'd8;
                    if (todo == 9'd8) step <= PLAN;
                end else step <= COUNT;
            end
            COUNT: begin
                if (counted) counts[part] <= counts[part] + 64'd1;
                todo <= todo - {5'd0, size};
                lane <= lane + size[2:0];
                if (todo == {5'd0, size}) step <= PLAN;
                else if ({1'b0, lane} + size == 4'd8) step <= READ;
            end
            WRITE: if (m_axi_gmem_WREADY) begin
                slot <= slot + 13'd1;
                todo <= todo - 9'd8;
                if (todo == 9'd8) step <= ANSWER;
            end
            ANSWER: if (m_axi_gmem_BVALID) step <= PLAN;
            default: step <= IDLE;
        endcase
    end
endmodule
`default_nettype wire
