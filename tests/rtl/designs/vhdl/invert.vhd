-- A stream of 32-bit words with every bit inverted.
library ieee;
use ieee.std_logic_1164.all;

entity invert is
    port (
        ap_clk            : in  std_logic;
        ap_rst_n          : in  std_logic;
        s_axis_in_tvalid  : in  std_logic;
        s_axis_in_tready  : out std_logic;
        s_axis_in_tdata   : in  std_logic_vector(31 downto 0);
        s_axis_in_tlast   : in  std_logic;
        m_axis_out_tvalid : out std_logic;
        m_axis_out_tready : in  std_logic;
        m_axis_out_tdata  : out std_logic_vector(31 downto 0);
        m_axis_out_tlast  : out std_logic
    );
end entity;

architecture rtl of invert is
    signal held : std_logic := '0';
    signal free : std_logic;
begin
    free <= m_axis_out_tready or not held;
    s_axis_in_tready <= free;
    m_axis_out_tvalid <= held;

    process (ap_clk)
    begin
        if rising_edge(ap_clk) then
            if ap_rst_n = '0' then
                held <= '0';
            elsif free = '1' then
                held <= s_axis_in_tvalid;
                m_axis_out_tdata <= not s_axis_in_tdata;
                m_axis_out_tlast <= s_axis_in_tlast;
            end if;
        end if;
    end process;
end architecture;
