#include "fabric/ofi_domain.h"

#include <array>
#include <csignal>
#include <cstring>

#include "base/random.h"

namespace switchyard::fabric {
namespace {

const std::uint32_t kApiVersion = FI_VERSION(1, 17);
constexpr std::size_t kQueue = 256;  // of an endpoint; a path has fewer writes under way (OfiFabric)
constexpr std::string_view kDatagrams = ";ofi_rxm";  // the layer that makes datagrams of connections

// Puts back the handlers of fatal signals: libfabric loads providers that install their own, which hide what
// a process died of and write files where it stands.
class KeepSignalHandlers {
 public:
  KeepSignalHandlers() {
    for (std::size_t i = 0; i < kSignals.size(); ++i) sigaction(kSignals[i], nullptr, &before_[i]);
  }
  ~KeepSignalHandlers() {
    for (std::size_t i = 0; i < kSignals.size(); ++i) sigaction(kSignals[i], &before_[i], nullptr);
  }
  KeepSignalHandlers(const KeepSignalHandlers&) = delete;
  KeepSignalHandlers& operator=(const KeepSignalHandlers&) = delete;

 private:
  static constexpr std::array kSignals = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT, SIGINT, SIGTERM};
  std::array<struct sigaction, kSignals.size()> before_{};
};

// Endpoints that have an IP address are asked for at `host`; the others have names of their own.
bool wants_host(const std::string& provider) { return provider != "shm" && provider != "efa"; }

// Regions that belong to one endpoint (FI_MR_ENDPOINT) are not asked for: a path has an endpoint of its own,
// and peers write into the same regions over all of them.
Result<Info> query(const std::string& provider, const std::string& host, fi_ep_type type) {
  Info hints(fi_allocinfo());
  if (!hints) return fail(ErrorCode::exhausted, "libfabric: no memory");
  hints->caps = FI_MSG | FI_RMA;
  hints->mode = FI_CONTEXT | FI_CONTEXT2;
  hints->ep_attr->type = type;
  hints->domain_attr->mr_mode = FI_MR_LOCAL | FI_MR_VIRT_ADDR | FI_MR_ALLOCATED | FI_MR_PROV_KEY;
  hints->domain_attr->threading = FI_THREAD_SAFE;             // registration comes from any thread
  hints->domain_attr->control_progress = FI_PROGRESS_MANUAL;  // no thread per endpoint
  hints->domain_attr->data_progress = FI_PROGRESS_MANUAL;
  hints->domain_attr->cq_data_size = 4;
  hints->domain_attr->resource_mgmt = FI_RM_ENABLED;
  hints->tx_attr->op_flags = FI_DELIVERY_COMPLETE;
  if (type == FI_EP_RDM) {
    hints->tx_attr->size = kQueue;
    hints->rx_attr->size = kQueue;
  }
  hints->fabric_attr->prov_name = strdup(provider.c_str());
  fi_info* found = nullptr;
  const bool at_host = wants_host(provider);
  const KeepSignalHandlers keep;
  const int code = fi_getinfo(kApiVersion, at_host ? host.c_str() : nullptr, nullptr, at_host ? FI_SOURCE : 0,
                              hints.get(), &found);
  if (code == -FI_ENODATA) {
    return fail(ErrorCode::unsupported,
                "libfabric has no '{}' with remote writes and delivery completion at {}", provider, host);
  }
  if (code != 0) return fail(ErrorCode::unsupported, "libfabric provider '{}': {}", provider, ofi_text(code));
  return Info(found);
}

}  // namespace

std::string ofi_text(long code) { return fi_strerror(static_cast<int>(code < 0 ? -code : code)); }

Result<Info> find_ofi_provider(const std::string& provider, const std::string& host) {
  std::string below = provider;
  if (below.ends_with(kDatagrams)) below.resize(below.size() - kDatagrams.size());
  if (auto connected = query(below, host, FI_EP_MSG)) return connected;
  return query(provider, host, FI_EP_RDM);
}

tl::unexpected<Error> OfiDomain::failed(std::string_view what, long code) const {
  const auto kind = code == -FI_ENOMEM || code == -FI_EMFILE ? ErrorCode::exhausted : ErrorCode::io;
  return fail(kind, "fabric '{}': {} failed: {}", shown, what, ofi_text(code));
}

Result<std::shared_ptr<OfiDomain>> OfiDomain::open(const std::string& provider, const std::string& shown,
                                                   const std::string& host) {
  auto info = find_ofi_provider(provider, host);
  if (!info) return pass(info.error());
  auto self = std::make_shared<OfiDomain>();
  self->shown = shown;
  self->info = std::move(*info);
  fid_fabric* fabric = nullptr;
  if (int code = fi_fabric(self->info->fabric_attr, &fabric, nullptr)) return self->failed("fi_fabric", code);
  self->fabric.reset(fabric);
  fid_domain* domain = nullptr;
  if (int code = fi_domain(fabric, self->info.get(), &domain, nullptr))
    return self->failed("fi_domain", code);
  self->domain.reset(domain);
  // Keys that nobody guesses by counting from zero.
  std::uint32_t first = 0;
  if (auto ok = fill_random(std::as_writable_bytes(std::span(&first, 1))); !ok) return pass(ok.error());
  self->next_key = std::uint64_t{first} << 20 | 1;
  return self;
}

Result<std::unique_ptr<LocalMemory>> OfiMemory::register_range(std::shared_ptr<OfiDomain> domain,
                                                               const MemoryRange& range) {
  if (range.dmabuf >= 0)
    return fail(ErrorCode::unsupported, "fabric '{}': device memory is out of its reach", domain->shown);
  const fi_domain_attr& attributes = *domain->info->domain_attr;
  std::uint64_t key = domain->next_key.fetch_add(1, std::memory_order_relaxed);
  if (attributes.mr_key_size < 8) key &= (std::uint64_t{1} << (8 * attributes.mr_key_size)) - 1;
  fid_mr* region = nullptr;
  if (int code = fi_mr_reg(domain->domain.get(), range.base, range.bytes, FI_WRITE | FI_REMOTE_WRITE, 0, key,
                           0, &region, nullptr))
    return domain->failed(fmt::format("registering {} bytes", range.bytes), code);
  const bool virtual_addresses = (attributes.mr_mode & FI_MR_VIRT_ADDR) != 0;
  return std::unique_ptr<LocalMemory>(
      new OfiMemory(std::move(domain), Fid<fid_mr>(region),
                    virtual_addresses ? reinterpret_cast<std::uint64_t>(range.base) : 0));
}

}  // namespace switchyard::fabric
