// The CRC-32 of a stream (IEEE 802.3, as zlib computes it): 8 bytes a beat, one word after the last of them.
`default_nettype none
module crc32 (
    input  wire        ap_clk,
    input  wire        ap_rst_n,
    input  wire        s_axis_data_TVALID,
    output wire        s_axis_data_TREADY,
    input  wire [63:0] s_axis_data_TDATA,
    input  wire [ 7:0] s_axis_data_TKEEP,
    input  wire        s_axis_data_TLAST,
    output reg         m_axis_sum_TVALID,
    input  wire        m_axis_sum_TREADY,
    output reg  [31:0] m_axis_sum_TDATA,
    output wire        m_axis_sum_TLAST
);
    assign m_axis_sum_TLAST = 1'b1;
    assign s_axis_data_TREADY = !m_axis_sum_TVALID;

    function automatic [31:0] next(input [31:0] sum, input [63:0] data, input [7:0] keep);
        integer i, k;
        begin
            next = sum;
            for (i = 0; i < 8; i = i + 1)
                if (keep[i]) begin
                    next = next ^ {24'd0, data[8*i +: 8]};
                    for (k = 0; k < 8; k = k + 1) next = next[0] ? (next >> 1) ^ 32'hEDB88320 : next >> 1;
                end
        end
    endfunction

    reg  [31:0] sum;
    wire [31:0] after = next(sum, s_axis_data_TDATA, s_axis_data_TKEEP);
    always @(posedge ap_clk)
        if (!ap_rst_n) begin
            sum <= 32'hFFFFFFFF;
            m_axis_sum_TVALID <= 1'b0;
        end else begin
            if (m_axis_sum_TREADY) m_axis_sum_TVALID <= 1'b0;
            if (s_axis_data_TVALID && s_axis_data_TREADY) begin
                sum <= s_axis_data_TLAST ? 32'hFFFFFFFF : after;
                m_axis_sum_TVALID <= s_axis_data_TLAST;
                m_axis_sum_TDATA <= ~after;
            end
        end
endmodule
`default_nettype wire
