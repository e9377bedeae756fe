// The first process of the guest. Loads kernel modules in the order of /modules.list, makes the root of
// the host, shared read-only, its own with a writable layer in memory, runs /run/softroce/start there, leaves the
// exit status in /run/softroce/status, and turns the machine off. Linked statically; has no other programs.
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

static void turn_off(void) {
  sync();
  reboot(RB_POWER_OFF);
  for (;;) pause();
}

static void give_up(const char* what) {
  printf("softroce: %s: %s\n", what, strerror(errno));
  turn_off();
}

static void mount_at(const char* source, const char* target, const char* type, unsigned long flags,
                     const char* options) {
  mkdir(target, 0755);
  if (mount(source, target, type, flags, options) != 0) give_up(target);
}

static void load_modules(void) {
  FILE* list = fopen("/modules.list", "r");
  if (list == NULL) give_up("/modules.list");
  char name[256];
  while (fscanf(list, "%255s", name) == 1) {
    char path[300];
    snprintf(path, sizeof path, "/modules/%s", name);
    const int file = open(path, O_RDONLY | O_CLOEXEC);
    // Some need hardware that is not there, and are not needed then.
    if (file < 0 || (syscall(SYS_finit_module, file, "", 0) != 0 && errno != EEXIST && errno != ENODEV))
      printf("softroce: module %s: %s\n", name, strerror(errno));
    if (file >= 0) close(file);
  }
  fclose(list);
}

// Output of the command: the second serial line, as it is.
static void use_serial_line(const char* path) {
  const int line = open(path, O_RDWR | O_NOCTTY);
  if (line < 0) give_up(path);
  struct termios settings;
  if (tcgetattr(line, &settings) == 0) {
    cfmakeraw(&settings);
    cfsetspeed(&settings, B115200);
    tcsetattr(line, TCSANOW, &settings);
  }
  const int nothing = open("/dev/null", O_RDONLY);
  dup2(nothing, 0);
  dup2(line, 1);
  dup2(line, 2);
  setvbuf(stdout, NULL, _IONBF, 0);
}

int main(void) {
  mount_at("proc", "/proc", "proc", 0, "");
  mount_at("sysfs", "/sys", "sysfs", 0, "");
  mount_at("dev", "/dev", "devtmpfs", 0, "");
  use_serial_line("/dev/ttyS1");
  load_modules();
  static const char kShare[] = "trans=virtio,version=9p2000.L,msize=1048576";
  char cached[128];
  snprintf(cached, sizeof cached, "%s,cache=loose", kShare);
  mount_at("host", "/host", "9p", MS_RDONLY, cached);
  mount_at("memory", "/memory", "tmpfs", 0, "size=75%");
  mkdir("/memory/upper", 0755);
  mkdir("/memory/work", 0755);
  mount_at("root", "/root", "overlay", 0, "lowerdir=/host,upperdir=/memory/upper,workdir=/memory/work");
  static const char* const kMoved[] = {"proc", "sys", "dev"};
  for (int i = 0; i < 3; ++i) {
    char from[16], to[32];
    snprintf(from, sizeof from, "/%s", kMoved[i]);
    snprintf(to, sizeof to, "/root/%s", kMoved[i]);
    mkdir(to, 0755);
    if (mount(from, to, NULL, MS_MOVE, NULL) != 0) give_up(to);
  }
  mount_at("pts", "/root/dev/pts", "devpts", 0, "");
  mount_at("shm", "/root/dev/shm", "tmpfs", 0, "");
  mount_at("run", "/root/run", "tmpfs", 0, "");
  mount_at("share", "/root/run/softroce", "9p", 0, kShare);

  const pid_t child = fork();
  if (child == 0) {
    if (chroot("/root") != 0 || chdir("/") != 0) give_up("chroot");
    setenv("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", 1);
    setenv("HOME", "/root", 1);
    setenv("LANG", "C.UTF-8", 1);
    setsid();
    execl("/bin/bash", "bash", "/run/softroce/start", (char*)NULL);
    give_up("/bin/bash");
  }
  int status = 0;
  for (pid_t ended = 0; ended != child;) {
    int each = 0;
    ended = wait(&each);
    if (ended == child) status = WIFEXITED(each) ? WEXITSTATUS(each) : 128 + WTERMSIG(each);
    if (ended < 0 && errno != EINTR) break;
  }
  FILE* file = fopen("/root/run/softroce/status", "w");
  if (file == NULL) give_up("status");
  fprintf(file, "%d\n", status);
  fclose(file);
  turn_off();
}
