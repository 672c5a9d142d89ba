// A kernel that reads one burst of 8 beats from src and writes one of 8 beats of `value` to dst.
// The register `fault` (0x34) plants one fault.
`default_nettype none
module faulty (
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
    output reg         m00_axi_awvalid,
    input  wire        m00_axi_awready,
    output reg  [63:0] m00_axi_awaddr,
    output reg  [ 7:0] m00_axi_awlen,
    output reg  [ 2:0] m00_axi_awsize,
    output reg  [ 1:0] m00_axi_awburst,
    output reg         m00_axi_wvalid,
    input  wire        m00_axi_wready,
    output reg  [63:0] m00_axi_wdata,
    output reg  [ 7:0] m00_axi_wstrb,
    output reg         m00_axi_wlast,
    input  wire        m00_axi_bvalid,
    output wire        m00_axi_bready,
    output reg         m00_axi_arvalid,
    input  wire        m00_axi_arready,
    output reg  [63:0] m00_axi_araddr,
    output reg  [ 7:0] m00_axi_arlen,
    output reg  [ 2:0] m00_axi_arsize,
    output reg  [ 1:0] m00_axi_arburst,
    input  wire        m00_axi_rvalid,
    output wire        m00_axi_rready,
    input  wire [63:0] m00_axi_rdata,
    input  wire        m00_axi_rlast
);
    localparam [7:0] BEATS = 8;
    wire [511:0] registers;
    wire [ 31:0] FAULT = registers[32*9 +: 32];
    wire start, bvalid, rvalid;
    wire [1:0] bresp;
    reg done;
    apf_control #(.REGISTERS(16)) control (
        .clk(ap_clk), .rst_n(ap_rst_n),
        .awvalid(s_axi_control_AWVALID), .awready(s_axi_control_AWREADY), .awaddr(s_axi_control_AWADDR),
        .wvalid(s_axi_control_WVALID), .wready(s_axi_control_WREADY), .wdata(s_axi_control_WDATA),
        .wstrb(s_axi_control_WSTRB), .bvalid(bvalid), .bready(s_axi_control_BREADY), .bresp(bresp),
        .arvalid(s_axi_control_ARVALID), .arready(s_axi_control_ARREADY), .araddr(s_axi_control_ARADDR),
        .rvalid(rvalid), .rready(s_axi_control_RREADY), .rdata(s_axi_control_RDATA), .rresp(s_axi_control_RRESP),
        .start(start), .done(done), .registers(registers)
    );
    assign s_axi_control_BVALID = bvalid || (FAULT == 15 && step == 3);
    assign s_axi_control_RVALID = rvalid || (FAULT == 19 && step == 3 && !s_axi_control_ARVALID && !reading);
    assign s_axi_control_BRESP = FAULT == 14 && s_axi_control_AWADDR == 12'h000 ? 2'd2 : bresp;
    reg reading;  // a register read is under way
    always @(posedge ap_clk)
        if (!ap_rst_n) reading <= 1'b0;
        else if (s_axi_control_ARVALID) reading <= 1'b1;
        else if (rvalid) reading <= 1'b0;

    wire [63:0] src = registers[0 +: 64], dst = registers[32*3 +: 64], value = registers[32*6 +: 64];
    assign m00_axi_bready = 1'b1;
    assign m00_axi_rready = 1'b1;

    reg [ 3:0] step;
    reg [ 7:0] beat;
    reg [31:0] age;
    wire w_moves = m00_axi_wvalid && m00_axi_wready;
    always @(posedge ap_clk) begin
        done <= 1'b0;
        age <= age + 1;
        if (!ap_rst_n) begin
            step <= 0;
            m00_axi_awvalid <= 0;
            m00_axi_wvalid <= 0;
            m00_axi_arvalid <= 0;
        end else case (step)
            0: if (start) begin
                step <= 1;
                age <= 0;
                m00_axi_arvalid <= 1;
                m00_axi_araddr <= FAULT == 8 ? 64'h0F00_0000 : src;
                m00_axi_arlen <= BEATS - 1;
                m00_axi_arsize <= FAULT == 11 ? 4 : 3;
                m00_axi_arburst <= FAULT == 12 ? 3 : 1;
            end
            1: begin
                if (FAULT == 18 && m00_axi_arvalid && !m00_axi_arready) m00_axi_arvalid <= 0;
                if (FAULT == 20 && m00_axi_arvalid && !m00_axi_arready) m00_axi_arlen <= m00_axi_arlen + 1;
                if (m00_axi_arvalid && m00_axi_arready) m00_axi_arvalid <= 0;
                if (m00_axi_rvalid && m00_axi_rlast) begin
                    step <= 2;
                    m00_axi_awvalid <= FAULT < 22;
                    m00_axi_wvalid <= FAULT >= 22;  // data before its address
                    m00_axi_wdata <= value;
                    m00_axi_wstrb <= 8'hFF;
                    m00_axi_wlast <= 0;
                    beat <= 0;
                    m00_axi_awaddr <= FAULT == 3 ? (dst | 64'hFE0) : FAULT == 7 ? 64'h0F00_0000 : dst;
                    m00_axi_awlen <= BEATS - 1;
                    m00_axi_awsize <= FAULT == 6 ? 2 : 3;
                    m00_axi_awburst <= 1;
                end
            end
            2: if (FAULT >= 22) begin
                if (w_moves) begin
                    beat <= beat + 1;
                    if (beat == 1) begin
                        m00_axi_wvalid <= 0;
                        m00_axi_awvalid <= FAULT == 22;
                    end
                end
                if (m00_axi_awvalid && m00_axi_awready) begin
                    m00_axi_awvalid <= 0;
                    m00_axi_wvalid <= 1;
                    step <= 3;
                end
            end else begin
                if (FAULT == 1 && m00_axi_awvalid && !m00_axi_awready) m00_axi_awvalid <= 0;
                if (FAULT == 2 && m00_axi_awvalid && !m00_axi_awready) m00_axi_awaddr <= m00_axi_awaddr + 64;
                if (m00_axi_awvalid && m00_axi_awready) begin
                    m00_axi_awvalid <= 0;
                    step <= 3;
                    beat <= 0;
                    m00_axi_wvalid <= 1;
                    m00_axi_wdata <= value;
                    m00_axi_wstrb <= 8'hFF;
                    m00_axi_wlast <= 0;
                end
            end
            3: begin
                if (FAULT == 9 && m00_axi_wvalid && !m00_axi_wready) m00_axi_wvalid <= 0;
                if (FAULT == 10 && m00_axi_wvalid && !m00_axi_wready) m00_axi_wdata <= m00_axi_wdata + 1;
                if (w_moves) begin
                    beat <= beat + 1;
                    m00_axi_wlast <= FAULT == 5 ? beat == 2 : FAULT == 4 ? 1'b0 : beat == BEATS - 2;
                    if (beat == BEATS - 1) begin
                        m00_axi_wvalid <= 0;
                        step <= 4;
                    end
                    if (FAULT == 13 && beat == 4) begin
                        m00_axi_wvalid <= 0;
                        done <= 1;
                        step <= 5;
                    end
                    if (FAULT == 17 && beat == 1) $finish;
                    if (FAULT == 21 && beat == 1) $stop;
                end
            end
            4: if (m00_axi_bvalid && FAULT != 16) begin
                $display("wrote %0d beats of %0h", BEATS, value);
                done <= 1;
                step <= 0;
            end
            default: ;
        endcase
    end
endmodule
`default_nettype wire
