// A stream of bytes with 1 added to each, eight at a time; no control interface. The first byte plants one fault.
`default_nettype none
module faulty_stream (
    input  wire        ap_clk,
    input  wire        ap_rst_n,
    input  wire        s_axis_in_tvalid,
    output wire        s_axis_in_tready,
    input  wire [63:0] s_axis_in_tdata,
    input  wire [ 7:0] s_axis_in_tkeep,
    input  wire        s_axis_in_tlast,
    output reg         m_axis_out_tvalid,
    input  wire        m_axis_out_tready,
    output reg  [63:0] m_axis_out_tdata,
    output reg  [ 7:0] m_axis_out_tkeep,
    output reg         m_axis_out_tlast
);
    reg [15:0] beats;
    reg [ 7:0] held;
    wire [7:0] FAULT = beats == 0 ? s_axis_in_tdata[7:0] : held;
    wire moves = m_axis_out_tvalid && m_axis_out_tready;
    wire stuck = FAULT == 6 && beats > 4;
    assign s_axis_in_tready = (!m_axis_out_tvalid || m_axis_out_tready) && !stuck;
    integer i;
    always @(posedge ap_clk) begin
        if (!ap_rst_n) begin
            m_axis_out_tvalid <= 0;
            beats <= 0;
            held <= 0;
        end else begin
            if (moves) m_axis_out_tvalid <= 0;
            if (held == 1 && m_axis_out_tvalid && !m_axis_out_tready) m_axis_out_tvalid <= 0;
            if (held == 2 && m_axis_out_tvalid && !m_axis_out_tready) m_axis_out_tdata <= m_axis_out_tdata + 1;
            if (s_axis_in_tvalid && s_axis_in_tready) begin
                held <= FAULT;
                m_axis_out_tvalid <= 1;
                for (i = 0; i < 8; i = i + 1) m_axis_out_tdata[8*i +: 8] <= s_axis_in_tdata[8*i +: 8] + 8'd1;
                m_axis_out_tkeep <= FAULT == 3 ? 8'hFD : s_axis_in_tkeep;
                m_axis_out_tlast <= FAULT == 5 ? beats == 4 : FAULT == 4 ? 1'b0 : s_axis_in_tlast;
                beats <= s_axis_in_tlast ? 0 : beats + 1;
            end
            if (held == 4 && !m_axis_out_tvalid) begin
                m_axis_out_tvalid <= 1;  // goes on after the end
                m_axis_out_tkeep <= 8'hFF;
                m_axis_out_tlast <= 0;
            end
        end
    end
endmodule
`default_nettype wire
