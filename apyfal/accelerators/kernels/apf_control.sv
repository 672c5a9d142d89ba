// AXI4-Lite registers of a kernel with the ap_ctrl_hs protocol (AMD UG1399): 0x00 control, then 32-bit registers from 0x10 on.
// With CHAIN the protocol is ap_ctrl_chain: "done" stays, and no run starts, until the host writes bit 4, "continue".
`default_nettype none
module apf_control #(
    parameter integer REGISTERS = 16,
    parameter integer CHAIN = 0
) (
    input  wire        clk,
    input  wire        rst_n,
    input  wire        awvalid,
    output wire        awready,
    input  wire [11:0] awaddr,
    input  wire        wvalid,
    output wire        wready,
    input  wire [31:0] wdata,
    input  wire [ 3:0] wstrb,
    output reg         bvalid,
    input  wire        bready,
    output wire [ 1:0] bresp,
    input  wire        arvalid,
    output wire        arready,
    input  wire [11:0] araddr,
    output reg         rvalid,
    input  wire        rready,
    output reg  [31:0] rdata,
    output wire [ 1:0] rresp,
    output reg         start,
    input  wire        done,
    output wire [32*REGISTERS-1:0] registers
);
    reg [31:0] values [REGISTERS];
    reg        done_bit, idle;

    assign bresp = 2'b00;
    assign rresp = 2'b00;
    wire writes = awvalid && wvalid && !bvalid;
    assign awready = writes;
    assign wready  = writes;
    assign arready = !rvalid;

    genvar g;
    generate
        for (g = 0; g < REGISTERS; g = g + 1) begin : flat
            assign registers[32*g +: 32] = values[g];
        end
    endgenerate

    wire [9:0] write_index = awaddr[11:2] - 10'd4;
    wire [9:0] read_index = araddr[11:2] - 10'd4;
    integer i;
    always @(posedge clk) begin
        if (!rst_n) begin
            bvalid <= 1'b0;
            rvalid <= 1'b0;
            start <= 1'b0;
            done_bit <= 1'b0;
            idle <= 1'b1;
        end else begin
            start <= 1'b0;
            if (bvalid && bready) bvalid <= 1'b0;
            if (writes) begin
                bvalid <= 1'b1;
                if (awaddr == 12'h000) begin
                    if (wdata[4] && wstrb[0] && CHAIN != 0) done_bit <= 1'b0;
                    if (wdata[0] && wstrb[0] && !(CHAIN != 0 && done_bit)) begin
                        start <= 1'b1;
                        idle <= 1'b0;
                    end
                end else if (awaddr >= 12'h010 && write_index < REGISTERS) begin
                    for (i = 0; i < 4; i = i + 1)
                        if (wstrb[i]) values[write_index][8*i +: 8] <= wdata[8*i +: 8];
                end
            end
            if (rvalid && rready) rvalid <= 1'b0;
            if (arvalid && arready) begin
                rvalid <= 1'b1;
                rdata <= 32'd0;
                if (araddr == 12'h000) begin
                    rdata <= {28'd0, done_bit, idle, done_bit, !idle};
                    if (CHAIN == 0) done_bit <= 1'b0;
                end else if (araddr >= 12'h010 && read_index < REGISTERS) rdata <= values[read_index];
            end
            if (done) begin
                done_bit <= 1'b1;
                idle <= 1'b1;
            end
        end
    end
endmodule
`default_nettype wire
