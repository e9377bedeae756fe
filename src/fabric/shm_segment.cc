#include "fabric/shm_segment.h"

#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <functional>

namespace switchyard::fabric {

SegmentMapping::~SegmentMapping() {
  if (segment_ != nullptr) munmap(segment_, sizeof(Segment));
}

Result<SegmentMapping> SegmentMapping::map(int descriptor) {
  struct stat status {};
  if (fstat(descriptor, &status) != 0 || status.st_size != static_cast<off_t>(sizeof(Segment))) {
    return fail(ErrorCode::corrupt,
                "a shared-memory segment has the wrong size; are both programs of one version?");
  }
  void* at = mmap(nullptr, sizeof(Segment), PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0);
  if (at == MAP_FAILED)
    return fail(ErrorCode::exhausted, "mapping a shared-memory segment failed: {}", strerror(errno));
  SegmentMapping mapping;
  mapping.segment_ = static_cast<Segment*>(at);
  return mapping;
}

std::uint64_t host_identity() {
  std::string boot;
  std::ifstream("/proc/sys/kernel/random/boot_id") >> boot;
  struct stat status {};
  if (stat("/proc/self/ns/pid", &status) == 0) boot += std::to_string(status.st_ino);
  // FNV-1a: the same in every build, which std::hash need not be.
  std::uint64_t hash = 0xcbf29ce484222325;
  for (unsigned char c : boot) hash = (hash ^ c) * 0x100000001b3;
  return hash;
}

}  // namespace switchyard::fabric
