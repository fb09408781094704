/* openapi.S -- the OpenAPI document as bytes of the binary. (ld -r -b binary would do it too, but make the
 * stack executable.) Assembled from the root of the repository, for x86-64 and arm64 alike. */
    .section .rodata
    .globl gp_openapi
    .globl gp_openapi_size
    .type gp_openapi, %object
    .type gp_openapi_size, %object
    .balign 8
gp_openapi:
    .incbin "proto/openapi.json"
gp_openapi_end:
    .byte 0
    .size gp_openapi, . - gp_openapi
    .balign 8
gp_openapi_size:
    .quad gp_openapi_end - gp_openapi
    .size gp_openapi_size, 8
    .section .note.GNU-stack, "", %progbits
