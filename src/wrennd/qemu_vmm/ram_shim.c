/* Placeholder body so the extension builds. */
int wrenn_ram_shim_version(void);
__attribute__((visibility("default"))) int wrenn_ram_shim_version(void) { return 1; }
