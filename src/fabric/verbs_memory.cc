// Relaxed ordering: the device may write the bytes of a region to memory in any order, which PCI Express
// and hosts with several roots carry faster. The queue's entry that tells of an immediate is not of such a
// region: it is written with strict ordering and may not overtake any write before it, so who has seen it
// sees all bytes of its write and of those before it on the same queue pair. Nobody may wait for the bytes
// themselves.
#include "fabric/verbs_memory.h"

#include <cerrno>
#include <cstring>

namespace switchyard::fabric {

Result<std::unique_ptr<LocalMemory>> VerbsMemory::register_range(std::shared_ptr<VerbsDevice> device,
                                                                 const MemoryRange& range) {
  const VerbsLibrary& verbs = device->verbs;
  const auto address = reinterpret_cast<std::uint64_t>(range.base);
  constexpr unsigned kAccess = IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE;
  const bool on_host = range.dmabuf < 0;
  ibv_mr* region = nullptr;
  if (on_host) {
    // Devices that do not know relaxed ordering ignore it.
    region = verbs.reg_mr(device->domain.get(), range.base, range.bytes, address,
                          kAccess | IBV_ACCESS_RELAXED_ORDERING);
  } else if (verbs.reg_dmabuf_mr == nullptr) {
    errno = EOPNOTSUPP;
  } else {
    const auto from_device = [&](unsigned access) {
      return verbs.reg_dmabuf_mr(device->domain.get(), range.dmabuf_offset, range.bytes, address,
                                 range.dmabuf, static_cast<int>(access));
    };
    region = from_device(kAccess | IBV_ACCESS_RELAXED_ORDERING);
    if (region == nullptr && (errno == EINVAL || errno == EOPNOTSUPP)) region = from_device(kAccess);
  }
  if (region == nullptr) {
    const int error = errno;
    if (!on_host && (error == EOPNOTSUPP || error == ENOSYS || error == EPROTONOSUPPORT)) {
      return fail(ErrorCode::unsupported, "fabric 'verbs': {} cannot reach memory of other devices (DMA-BUF)",
                  device->name);
    }
    return fail(error == ENOMEM ? ErrorCode::exhausted : ErrorCode::io,
                "fabric 'verbs': registering {} bytes with {} failed: {}{}", range.bytes, device->name,
                strerror(error), error == ENOMEM ? "; raise the limit of locked memory (ulimit -l)" : "");
  }
  return std::unique_ptr<LocalMemory>(
      new VerbsMemory(std::move(device), VerbsHandle<ibv_mr>(region, verbs.dereg_mr), address, on_host));
}

}  // namespace switchyard::fabric
