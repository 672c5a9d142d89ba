/* Moved to include/driver_support.h; this name is kept for drivers that are built with -I csrc. */
#include "include/driver_support.h"
