/* checksum.h - the CRCs that stores state of their objects. */
#ifndef APF_TRANSPORT_CHECKSUM_H
#define APF_TRANSPORT_CHECKSUM_H

#include <stddef.h>
#include <stdint.h>

typedef enum apf_sum { APF_SUM_NONE = 0, APF_SUM_CRC64NVME = 1, APF_SUM_CRC32C = 2, APF_SUM_CRC32 = 4 } apf_sum;

/* Continue the CRC `value` (0 in the beginning) over `size` bytes. */
uint64_t apf_sum_update(apf_sum kind, uint64_t value, const void *data, size_t size);

#endif
