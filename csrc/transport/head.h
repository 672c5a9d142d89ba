/* head.h - the head of an HTTP/1.1 response, read strictly: what is not plainly right is for another parser. */
#ifndef APF_TRANSPORT_HEAD_H
#define APF_TRANSPORT_HEAD_H

#include <stddef.h>
#include <stdint.h>

enum { APF_HEAD_LARGEST = 16 << 10 };

typedef struct apf_head {
    size_t size;     /* bytes, with the blank line */
    uint32_t status; /* 200 to 599 */
    uint64_t length; /* Content-Length, which is there */
    uint8_t keep;    /* the connection may be used again */
    uint8_t plain;   /* a strong ETag, no Content-Encoding, Content-Range or checksum that is not known here */
    uint8_t sums;    /* which of the following are stated, of the whole object: `apf_sum` */
    uint64_t crc64nvme;
    uint32_t crc32c, crc32;
} apf_head;

enum { APF_HEAD_MORE = 0, APF_HEAD_READ = 1, APF_HEAD_ODD = -1 };

/* Read the head at `data`. READ; MORE: it is not complete; ODD: malformed, or the body is framed in another way than by
 * one Content-Length. */
int apf_head_read(const uint8_t *data, size_t size, apf_head *head);

#endif
