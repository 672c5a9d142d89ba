// The sources of `negate`: a list as simulators read it.
+incdir+include
+define+NEGATE_IDS=4 +define+NEGATE
-y library
negate.sv ../../../../apyfal/accelerators/kernels/apf_control.sv
kernel.xml
