package checkpoint

const seekData = 4 // SEEK_DATA of sys/unistd.h
