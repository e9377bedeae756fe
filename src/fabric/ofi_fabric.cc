// Every write asks for delivery completion: its completion means that the bytes are visible at the target, so
// that a lost connection can never turn a buffered write into a silent hole. Remote completions are
// recognised by their flag and carry nothing but the 32 bits; what failed is recognised by its context alone.
#include "fabric/ofi_fabric.h"

#include <rdma/fabric.h>
#include <rdma/fi_cm.h>
#include <rdma/fi_domain.h>
#include <rdma/fi_endpoint.h>
#include <rdma/fi_errno.h>
#include <rdma/fi_rma.h>

#include <array>
#include <atomic>
#include <csignal>
#include <cstring>
#include <random>

#include "base/log.h"
#include "fabric/ofi_handles.h"

namespace switchyard::fabric {
namespace {

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

constexpr std::uint32_t kContexts = 2048;           // writes in flight, all peers
constexpr std::uint64_t kMaxWriteBytes = 4u << 20;  // longer ones are split: fairness, and room to cancel
constexpr std::uint32_t kWindow = 32;
const std::uint32_t kApiVersion = FI_VERSION(1, 17);

std::string text(long code) { return fi_strerror(static_cast<int>(code < 0 ? -code : code)); }

// Errors that the target, or this side's own check, has about the write itself.
bool is_refusal(int error) { return error == FI_EACCES || error == FI_EINVAL || error == FI_ENOKEY; }

// Endpoints that have an IP address are asked for at `host`; the others have names of their own.
bool wants_host(const std::string& provider) { return provider != "shm" && provider != "efa"; }

Result<Info> query(const std::string& provider, const std::string& host) {
  Info hints(fi_allocinfo());
  if (!hints) return fail(ErrorCode::exhausted, "libfabric: no memory");
  hints->caps = FI_MSG | FI_RMA;
  hints->mode = FI_CONTEXT | FI_CONTEXT2;
  hints->ep_attr->type = FI_EP_RDM;
  hints->domain_attr->mr_mode =
      FI_MR_LOCAL | FI_MR_VIRT_ADDR | FI_MR_ALLOCATED | FI_MR_PROV_KEY | FI_MR_ENDPOINT;
  hints->domain_attr->threading = FI_THREAD_SAFE;  // registration comes from any thread
  hints->domain_attr->cq_data_size = 4;
  hints->domain_attr->resource_mgmt = FI_RM_ENABLED;
  hints->tx_attr->op_flags = FI_DELIVERY_COMPLETE;
  hints->fabric_attr->prov_name = strdup(provider.c_str());
  fi_info* found = nullptr;
  const bool at_host = wants_host(provider);
  const KeepSignalHandlers keep;
  const int code = fi_getinfo(kApiVersion, at_host ? host.c_str() : nullptr, nullptr, at_host ? FI_SOURCE : 0,
                              hints.get(), &found);
  if (code == -FI_ENODATA) {
    return fail(ErrorCode::unsupported,
                "libfabric has no '{}' with reliable datagrams, remote writes and delivery completion here",
                provider);
  }
  if (code != 0) return fail(ErrorCode::unsupported, "libfabric provider '{}': {}", provider, text(code));
  return Info(found);
}

class OfiMemory final : public LocalMemory {
 public:
  OfiMemory(std::shared_ptr<void> keep, Fid<fid_mr> region, std::uint64_t address)
      : keep_(std::move(keep)), region_(std::move(region)), address_(address) {}
  std::uint64_t remote_address() const override { return address_; }
  std::uint64_t remote_key() const override { return fi_mr_key(region_.get()); }
  void* descriptor() const { return fi_mr_desc(region_.get()); }

 private:
  std::shared_ptr<void> keep_;  // the domain outlives its regions
  Fid<fid_mr> region_;
  std::uint64_t address_;
};

// What lives until the last region is gone.
struct Domain {
  Info info;
  Fid<fid_fabric> fabric;
  Fid<fid_domain> domain;
};

// A write in flight. libfabric keeps the pointer until it reports the context.
struct Context {
  fi_context2 provider;  // first: its address is the context's
  std::uint64_t cookie = 0;
  std::uint32_t next_free = 0;
  bool busy = false;
};

class OfiFabric final : public Fabric {
 public:
  static Result<std::shared_ptr<Fabric>> open(const std::string& provider, const std::string& shown_name,
                                              const FabricOptions& options);
  ~OfiFabric() override { close(); }

  const Capabilities& capabilities() const override { return capabilities_; }
  std::vector<std::byte> address() const override { return address_; }
  Result<std::unique_ptr<LocalMemory>> register_memory(const MemoryRange& range) override;
  Result<PathEnd> add_peer(std::span<const std::byte> address) override;
  void remove_peer(PeerId peer) override;
  std::size_t post(PeerId peer, std::span<const WriteRequest> requests) override;
  std::size_t poll(std::span<Completion> completions) override;
  int wait_fd() const override { return -1; }
  bool prepare_sleep() override { return false; }
  std::string describe_error(int error) const override { return text(error); }
  void close() override;

 private:
  Context* context_of(void* pointer);
  void free_context(Context* context);
  bool report_failed(Completion& completion);

  std::shared_ptr<Domain> domain_;
  Fid<fid_cq> queue_;
  Fid<fid_av> addresses_;
  Fid<fid_ep> endpoint_;
  Capabilities capabilities_;
  std::vector<std::byte> address_;
  std::vector<fi_addr_t> peers_;  // by PeerId; FI_ADDR_NOTAVAIL where free
  std::vector<Context> contexts_;
  std::uint32_t first_free_ = 0;
  std::vector<std::pair<std::uint64_t, int>>
      refused_;  // posts that failed at once, reported by the next poll
  std::atomic<std::uint64_t> next_key_;
};

Result<std::shared_ptr<Fabric>> OfiFabric::open(const std::string& provider, const std::string& shown_name,
                                                const FabricOptions& options) {
  auto info = query(provider, options.host);
  if (!info) return pass(info.error());
  auto self = std::make_shared<OfiFabric>();
  self->domain_ = std::make_shared<Domain>();
  auto& domain = *self->domain_;
  domain.info = std::move(*info);
  fi_info* chosen = domain.info.get();
  auto io = [&](std::string_view what, long code) {
    return fail(ErrorCode::io, "fabric '{}': {} failed: {}", shown_name, what, text(code));
  };

  fid_fabric* fabric = nullptr;
  if (int code = fi_fabric(chosen->fabric_attr, &fabric, nullptr)) return io("fi_fabric", code);
  domain.fabric.reset(fabric);
  fid_domain* opened = nullptr;
  if (int code = fi_domain(fabric, chosen, &opened, nullptr)) return io("fi_domain", code);
  domain.domain.reset(opened);

  fi_cq_attr queue{};
  queue.format = FI_CQ_FORMAT_DATA;
  queue.size = 2 * kContexts;
  // No wait object: those of 1.17 stay readable once they have been signalled (net), or start a thread.
  queue.wait_obj = FI_WAIT_NONE;
  fid_cq* cq = nullptr;
  int code = fi_cq_open(opened, &queue, &cq, nullptr);
  if (code != 0) return io("fi_cq_open", code);
  self->queue_.reset(cq);

  fi_av_attr table{};
  table.type = FI_AV_TABLE;
  fid_av* av = nullptr;
  if ((code = fi_av_open(opened, &table, &av, nullptr)) != 0) return io("fi_av_open", code);
  self->addresses_.reset(av);

  fid_ep* endpoint = nullptr;
  if ((code = fi_endpoint(opened, chosen, &endpoint, nullptr)) != 0) return io("fi_endpoint", code);
  self->endpoint_.reset(endpoint);
  if ((code = fi_ep_bind(endpoint, &av->fid, 0)) != 0) return io("fi_ep_bind", code);
  if ((code = fi_ep_bind(endpoint, &cq->fid, FI_TRANSMIT | FI_RECV)) != 0) return io("fi_ep_bind", code);
  if ((code = fi_enable(endpoint)) != 0) return io("fi_enable", code);

  std::size_t length = 1024;
  self->address_.resize(length);
  if ((code = fi_getname(&endpoint->fid, self->address_.data(), &length)) != 0) return io("fi_getname", code);
  self->address_.resize(length);

  self->peers_.assign(options.max_peers, FI_ADDR_NOTAVAIL);
  self->contexts_.resize(kContexts);
  for (std::uint32_t i = 0; i < kContexts; ++i) self->contexts_[i].next_free = i + 1;
  self->refused_.reserve(kContexts);
  // Keys that nobody guesses by counting from zero.
  std::random_device entropy;
  self->next_key_ = (std::uint64_t{entropy()} << 20) | 1;
  self->capabilities_ = {
      .fabric = shown_name,
      .ordered = false,
      .lingers = true,
      .max_write_bytes = std::min<std::uint64_t>(kMaxWriteBytes, chosen->ep_attr->max_msg_size),
      .max_outstanding = kContexts,
      .window = kWindow};
  return std::shared_ptr<Fabric>(std::move(self));
}

Result<std::unique_ptr<LocalMemory>> OfiFabric::register_memory(const MemoryRange& range) {
  if (range.dmabuf >= 0) {
    return fail(ErrorCode::unsupported, "fabric '{}': device memory is out of its reach",
                capabilities_.fabric);
  }
  const fi_info* info = domain_->info.get();
  const int mode = info->domain_attr->mr_mode;
  std::uint64_t key = next_key_.fetch_add(1, std::memory_order_relaxed);
  if (info->domain_attr->mr_key_size < 8)
    key &= (std::uint64_t{1} << (8 * info->domain_attr->mr_key_size)) - 1;
  fid_mr* region = nullptr;
  int code = fi_mr_reg(domain_->domain.get(), range.base, range.bytes, FI_WRITE | FI_REMOTE_WRITE, 0, key, 0,
                       &region, nullptr);
  if (code == 0 && (mode & FI_MR_ENDPOINT) != 0) {
    code = fi_mr_bind(region, &endpoint_->fid, 0);
    if (code == 0) code = fi_mr_enable(region);
    if (code != 0) fi_close(&region->fid);
  }
  if (code != 0) {
    return fail(code == -FI_ENOMEM ? ErrorCode::exhausted : ErrorCode::io,
                "fabric '{}': registering {} bytes failed: {}", capabilities_.fabric, range.bytes,
                text(code));
  }
  const bool virtual_addresses = (mode & FI_MR_VIRT_ADDR) != 0;
  return std::make_unique<OfiMemory>(domain_, Fid<fid_mr>(region),
                                     virtual_addresses ? reinterpret_cast<std::uint64_t>(range.base) : 0);
}

Result<PathEnd> OfiFabric::add_peer(std::span<const std::byte> address) {
  // Providers read as many bytes as their own addresses have, or up to a terminating zero.
  if (address.empty() || (domain_->info->addr_format == FI_ADDR_STR ? address.back() != std::byte{0}
                                                                    : address.size() != address_.size())) {
    return fail(ErrorCode::corrupt, "fabric '{}': {} bytes are not a peer's address", capabilities_.fabric,
                address.size());
  }
  for (PeerId id = 0; id < peers_.size(); ++id) {
    if (peers_[id] != FI_ADDR_NOTAVAIL) continue;
    fi_addr_t inserted = FI_ADDR_NOTAVAIL;
    const int count = fi_av_insert(addresses_.get(), address.data(), 1, &inserted, 0, nullptr);
    if (count != 1) {
      return fail(ErrorCode::io, "fabric '{}': fi_av_insert failed: {}", capabilities_.fabric, text(count));
    }
    peers_[id] = inserted;
    return PathEnd{.peer = id};
  }
  return fail(ErrorCode::exhausted, "fabric '{}': {} peers are the limit", capabilities_.fabric,
              peers_.size());
}

void OfiFabric::remove_peer(PeerId peer) {
  if (peer >= peers_.size() || peers_[peer] == FI_ADDR_NOTAVAIL) return;
  fi_av_remove(addresses_.get(), &peers_[peer], 1, 0);
  peers_[peer] = FI_ADDR_NOTAVAIL;
}

std::size_t OfiFabric::post(PeerId peer, std::span<const WriteRequest> requests) {
  std::size_t taken = 0;
  for (const WriteRequest& request : requests) {
    if (first_free_ == kContexts) break;
    Context& context = contexts_[first_free_];
    iovec local{const_cast<std::byte*>(request.source), request.bytes};
    void* descriptor = request.source_memory != nullptr
                           ? static_cast<const OfiMemory*>(request.source_memory)->descriptor()
                           : nullptr;
    fi_rma_iov remote{request.target_address, request.bytes, request.target_key};
    fi_msg_rma message{};
    message.msg_iov = &local;
    message.desc = &descriptor;
    message.iov_count = 1;
    message.addr = peers_[peer];
    message.rma_iov = &remote;
    message.rma_iov_count = 1;
    message.context = &context;
    message.data = request.immediate;
    const ssize_t code =
        fi_writemsg(endpoint_.get(), &message,
                    FI_COMPLETION | FI_DELIVERY_COMPLETE | (request.has_immediate ? FI_REMOTE_CQ_DATA : 0));
    if (code == -FI_EAGAIN) break;
    ++taken;
    if (code != 0) {
      if (refused_.size() == refused_.capacity()) {
        --taken;
        break;
      }
      refused_.emplace_back(request.cookie, static_cast<int>(-code));
      continue;
    }
    first_free_ = context.next_free;
    context.cookie = request.cookie;
    context.busy = true;
  }
  return taken;
}

Context* OfiFabric::context_of(void* pointer) {
  const auto at = reinterpret_cast<std::uintptr_t>(pointer);
  const auto first = reinterpret_cast<std::uintptr_t>(contexts_.data());
  if (at < first || at >= first + contexts_.size() * sizeof(Context) || (at - first) % sizeof(Context) != 0)
    return nullptr;
  auto* context = static_cast<Context*>(pointer);
  return context->busy ? context : nullptr;
}

void OfiFabric::free_context(Context* context) {
  context->busy = false;
  context->next_free = first_free_;
  first_free_ = static_cast<std::uint32_t>(context - contexts_.data());
}

bool OfiFabric::report_failed(Completion& completion) {
  fi_cq_err_entry entry{};
  if (fi_cq_readerr(queue_.get(), &entry, 0) < 1) return false;
  Context* context = context_of(entry.op_context);
  if (context == nullptr) {
    // Somebody's write into this engine that was refused: its sender is told; here nothing is lost.
    log::debug("fabric '{}': an incoming operation failed: {}", capabilities_.fabric, text(entry.err));
    return false;
  }
  completion = {.kind = Completion::Kind::failed,
                .refused = is_refusal(entry.err),
                .error = entry.err,
                .cookie = context->cookie};
  free_context(context);
  return true;
}

std::size_t OfiFabric::poll(std::span<Completion> completions) {
  std::size_t count = 0;
  while (!refused_.empty() && count < completions.size()) {
    completions[count++] = {.kind = Completion::Kind::failed,
                            .refused = is_refusal(refused_.back().second),
                            .error = refused_.back().second,
                            .cookie = refused_.back().first};
    refused_.pop_back();
  }
  constexpr std::size_t kBatch = 32;
  fi_cq_data_entry entries[kBatch];
  while (count < completions.size()) {
    const ssize_t got = fi_cq_read(queue_.get(), entries, std::min(kBatch, completions.size() - count));
    if (got == -FI_EAVAIL) {
      if (report_failed(completions[count])) ++count;
      continue;
    }
    if (got <= 0) break;
    for (ssize_t i = 0; i < got; ++i) {
      if ((entries[i].flags & FI_REMOTE_CQ_DATA) != 0) {
        completions[count++] = {.kind = Completion::Kind::arrived,
                                .immediate = static_cast<std::uint32_t>(entries[i].data)};
      } else if (Context* context = context_of(entries[i].op_context)) {
        completions[count++] = {.cookie = context->cookie};
        free_context(context);
      }
    }
  }
  return count;
}

void OfiFabric::close() {
  endpoint_.reset();
  queue_.reset();
  addresses_.reset();
}

}  // namespace

Result<std::shared_ptr<Fabric>> open_ofi_fabric(const std::string& provider, const std::string& shown_name,
                                                const FabricOptions& options) {
  return OfiFabric::open(provider, shown_name, options);
}

FabricReport probe_ofi_provider(const std::string& provider, const std::string& shown_name,
                                const std::string& host) {
  FabricReport report{.name = shown_name};
  auto info = query(provider, host);
  if (!info) {
    report.detail = info.error().message;
    return report;
  }
  report.usable = true;
  const fi_info* found = info->get();
  report.detail = fmt::format("libfabric {}, domain {}, {} addresses", provider,
                              found->domain_attr->name != nullptr ? found->domain_attr->name : "?",
                              (found->domain_attr->mr_mode & FI_MR_VIRT_ADDR) != 0 ? "virtual" : "offset");
  return report;
}

}  // namespace switchyard::fabric
