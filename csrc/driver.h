/* Moved to include/driver.h; this name is kept for drivers that are built with -I csrc. */
#include "include/driver.h"
