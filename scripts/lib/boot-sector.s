# A disk's first sector, for the test guest: tries the disk as boot loaders use it, by the firmware's own driver.
#
# Reads a sector with a text (up to a zero byte), writes it into the next sector, reads that one, and prints what it read
# on the first serial port. The machine is reset then. Where the text is, is defined for the assembler: TEXT, in sectors.
    .code16
    .globl _start
    .set BUFFER, 0x8000
    .set SERIAL, 0x3f8
    .set LINE_STATUS, SERIAL + 5

_start:
    ljmp $0, $begin                 # the firmware may have come by another segment
begin:
    xorw %ax, %ax
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %ss
    movw $_start, %sp
    cld

    movb $0x42, %ah                 # extended read; the drive is in DL
    call transfer
    incw packet_sector
    movw $0x4300, %ax               # extended write, without verification
    call transfer
    movw $BUFFER, %di               # what is printed has been read again
    movw $256, %cx
    xorw %ax, %ax
    rep stosw
    movb $0x42, %ah
    call transfer
    movw $BUFFER, %si
    call print

reset:
    movb $0xfe, %al                 # the keyboard controller's line to the processor's reset
    outb %al, $0x64
    hlt
    jmp reset

# One sector by INT 13h, function AX.
transfer:
    movw $packet, %si
    movb %dl, drive
    int $0x13
    movb drive, %dl
    jc failed
    ret
failed:
    movw $complaint, %si
    call print
    jmp reset

# Prints the text at SI.
print:
    lodsb
    testb %al, %al
    jz printed
    movb %al, %bl
    movw $LINE_STATUS, %dx
wait:
    inb %dx, %al
    testb $0x20, %al                # room for a byte
    jz wait
    movw $SERIAL, %dx
    movb %bl, %al
    outb %al, %dx
    jmp print
printed:
    ret

complaint:
    .asciz "GUEST: FAILED firmware\r\n"
drive:
    .byte 0
    .balign 4
packet:
    .byte 16, 0
    .word 1                         # sectors
    .word BUFFER, 0                 # offset, segment
packet_sector:
    .quad TEXT

    .org 510
    .word 0xaa55
