// Every write asks for delivery completion: its completion means that the bytes are visible at the target, so
// that a lost connection can never turn a buffered write into a silent hole. Remote completions are
// recognised by their flag and carry nothing but the 32 bits; what failed is recognised by its context alone.
//
// All paths share one completion queue. What was under way on a path that is removed may still have an entry
// there, or none: the places of such writes are free again when their entry has come, or when the queue has
// been empty once since.
#include "fabric/ofi_fabric.h"

#include <algorithm>

#include "base/log.h"
#include "fabric/loopback.h"
#include "fabric/ofi_path.h"
#include "fabric/ofi_token.h"

namespace switchyard::fabric {
namespace {

constexpr std::uint32_t kContexts = 2048;           // writes in flight, all paths
constexpr std::uint64_t kMaxWriteBytes = 4u << 20;  // longer ones are split: fairness, and room to cancel
constexpr std::uint32_t kWindow = 32;
constexpr int kBroken = FI_ECONNRESET;       // of writes on a path that has lost its connection
constexpr std::uint32_t kPollsPerLook = 32;  // at connections, while none is being made

// Errors that the target, or this side's own check, has about the write itself.
bool is_refusal(int error) { return error == FI_EACCES || error == FI_EINVAL || error == FI_ENOKEY; }

// A write in flight. libfabric keeps the pointer until it reports the context.
struct Context {
  enum class State : std::uint8_t {
    free,
    posted,
    reported,  // as failed, with its path; libfabric has not reported it
    orphaned   // its path has been removed
  };
  fi_context2 provider;  // first: its address is the context's
  std::uint64_t cookie = 0;
  std::uint32_t next_free = 0;
  PeerId path = 0;
  State state = State::free;
};

class OfiFabric final : public Fabric {
 public:
  static Result<std::shared_ptr<Fabric>> open(const std::string& provider, const std::string& shown_name,
                                              const FabricOptions& options);
  ~OfiFabric() override { close(); }

  const Capabilities& capabilities() const override { return capabilities_; }
  std::vector<std::byte> address() const override { return encode(address_); }
  Result<std::unique_ptr<LocalMemory>> register_memory(const MemoryRange& range) override {
    return OfiMemory::register_range(domain_, range);
  }
  Result<PathEnd> add_peer(std::span<const std::byte> address) override;
  Status connect_peer(PeerId peer, std::span<const std::byte> token) override;
  void remove_peer(PeerId peer) override;
  std::size_t post(PeerId peer, std::span<const WriteRequest> requests) override;
  std::size_t poll(std::span<Completion> completions) override;
  int wait_fd() const override { return -1; }
  bool prepare_sleep() override { return false; }
  std::string describe_error(int error) const override { return ofi_text(error); }
  void close() override;

 private:
  struct Slot {
    std::unique_ptr<OfiPath> path;
    bool joining = false;   // counted in joining_
    bool given_up = false;  // what was under way when it broke has been reported
  };

  int post_one(const OfiPath& path, Context& context, const WriteRequest& request);
  Context* context_of(void* pointer);
  void free_context(Context* context);
  bool report_failed(Completion& completion);
  void look_around();
  void give_up(PeerId peer);
  void free_orphans();

  std::shared_ptr<OfiDomain> domain_;
  Fid<fid_cq> queue_;
  std::unique_ptr<OfiPaths> paths_;
  OfiAddress address_;
  Capabilities capabilities_;
  std::vector<Slot> slots_;  // by PeerId
  std::vector<Context> contexts_;
  std::uint32_t first_free_ = 0;
  std::uint32_t orphans_ = 0;
  std::uint32_t joining_ = 0;
  std::uint32_t polls_ = 0;
  std::vector<Completion> failed_;  // that libfabric does not report; for the next poll
};

Result<std::shared_ptr<Fabric>> OfiFabric::open(const std::string& provider, const std::string& shown_name,
                                                const FabricOptions& options) {
  auto domain = OfiDomain::open(provider, shown_name, options.host);
  if (!domain) return pass(domain.error());
  auto self = std::make_shared<OfiFabric>();
  self->domain_ = std::move(*domain);
  const fi_info& info = *self->domain_->info;

  fi_cq_attr attributes{};
  attributes.format = FI_CQ_FORMAT_DATA;
  attributes.size = 2 * kContexts;
  // No wait object: those of 1.17 stay readable once they have been signalled (net), or start a thread.
  attributes.wait_obj = FI_WAIT_NONE;
  fid_cq* queue = nullptr;
  if (int code = fi_cq_open(self->domain_->domain.get(), &attributes, &queue, nullptr))
    return self->domain_->failed("fi_cq_open", code);
  self->queue_.reset(queue);
  auto paths = OfiPaths::open(self->domain_, queue);
  if (!paths) return pass(paths.error());
  self->paths_ = std::move(*paths);

  self->address_ = {.format = info.addr_format, .type = static_cast<std::uint32_t>(info.ep_attr->type)};
  self->slots_.resize(options.max_peers);
  self->contexts_.resize(kContexts);
  for (std::uint32_t i = 0; i < kContexts; ++i) self->contexts_[i].next_free = i + 1;
  self->failed_.reserve(2 * kContexts);
  self->capabilities_ = {
      .fabric = shown_name,
      .ordered = false,
      .max_write_bytes = std::min<std::uint64_t>(kMaxWriteBytes, info.ep_attr->max_msg_size),
      .max_outstanding = kContexts,
      .window = kWindow};
  return std::shared_ptr<Fabric>(std::move(self));
}

Result<PathEnd> OfiFabric::add_peer(std::span<const std::byte> address) {
  auto theirs = decode_ofi_address(address);
  if (!theirs) return fail_at(fmt::format("fabric '{}'", capabilities_.fabric), theirs.error());
  if (*theirs != address_)
    return fail(ErrorCode::unsupported,
                "fabric '{}': the peer's rail has endpoints of another kind; do both use the same libfabric?",
                capabilities_.fabric);
  if (!paths_) return fail(ErrorCode::io, "fabric '{}': the rail is closed", capabilities_.fabric);
  const auto free = std::find_if(slots_.begin(), slots_.end(), [](const Slot& slot) { return !slot.path; });
  if (free == slots_.end())
    return fail(ErrorCode::exhausted, "fabric '{}': {} paths are the limit", capabilities_.fabric,
                slots_.size());
  auto path = paths_->make();
  if (!path) return pass(path.error());
  *free = {.path = std::move(*path), .joining = true};
  ++joining_;
  return PathEnd{.peer = static_cast<PeerId>(free - slots_.begin()), .token = free->path->token()};
}

Status OfiFabric::connect_peer(PeerId peer, std::span<const std::byte> token) {
  if (peer >= slots_.size() || !slots_[peer].path)
    return fail(ErrorCode::invalid, "fabric '{}': there is no path {}", capabilities_.fabric, peer);
  return slots_[peer].path->connect(token);
}

void OfiFabric::remove_peer(PeerId peer) {
  if (peer >= slots_.size() || !slots_[peer].path) return;
  Slot& slot = slots_[peer];
  joining_ -= slot.joining;
  slot = {};
  for (Context& context : contexts_) {
    if (context.path != peer || context.state == Context::State::free ||
        context.state == Context::State::orphaned)
      continue;
    context.state = Context::State::orphaned;
    ++orphans_;
  }
}

int OfiFabric::post_one(const OfiPath& path, Context& context, const WriteRequest& request) {
  iovec local{const_cast<std::byte*>(request.source), request.bytes};
  void* descriptor = request.source_memory != nullptr
                         ? static_cast<const OfiMemory*>(request.source_memory)->descriptor()
                         : nullptr;
  fi_rma_iov remote{request.target_address, request.bytes, request.target_key};
  fi_msg_rma message{};
  message.msg_iov = &local;
  message.desc = &descriptor;
  message.iov_count = 1;
  message.addr = path.target();
  message.rma_iov = &remote;
  message.rma_iov_count = 1;
  message.context = &context;
  message.data = request.immediate;
  return static_cast<int>(
      fi_writemsg(path.endpoint(), &message,
                  FI_COMPLETION | FI_DELIVERY_COMPLETE | (request.has_immediate ? FI_REMOTE_CQ_DATA : 0)));
}

std::size_t OfiFabric::post(PeerId peer, std::span<const WriteRequest> requests) {
  if (peer >= slots_.size() || !slots_[peer].path) return 0;
  const OfiPath& path = *slots_[peer].path;
  std::size_t taken = 0;
  for (const WriteRequest& request : requests) {
    if (path.state() == OfiPath::State::joining || first_free_ == kContexts) break;
    Context& context = contexts_[first_free_];
    const int code = path.state() == OfiPath::State::up ? post_one(path, context, request) : -kBroken;
    if (code == -FI_EAGAIN) break;
    if (code != 0) {
      if (failed_.size() == failed_.capacity()) break;
      failed_.push_back({.kind = Completion::Kind::failed,
                         .refused = is_refusal(-code),
                         .error = -code,
                         .cookie = request.cookie});
    } else {
      first_free_ = context.next_free;
      context.cookie = request.cookie;
      context.path = peer;
      context.state = Context::State::posted;
    }
    ++taken;
  }
  return taken;
}

Context* OfiFabric::context_of(void* pointer) {
  const auto at = reinterpret_cast<std::uintptr_t>(pointer);
  const auto first = reinterpret_cast<std::uintptr_t>(contexts_.data());
  if (at < first || at >= first + contexts_.size() * sizeof(Context) || (at - first) % sizeof(Context) != 0)
    return nullptr;
  auto* context = static_cast<Context*>(pointer);
  return context->state != Context::State::free ? context : nullptr;
}

void OfiFabric::free_context(Context* context) {
  orphans_ -= context->state == Context::State::orphaned;
  context->state = Context::State::free;
  context->next_free = first_free_;
  first_free_ = static_cast<std::uint32_t>(context - contexts_.data());
}

bool OfiFabric::report_failed(Completion& completion) {
  fi_cq_err_entry entry{};
  if (fi_cq_readerr(queue_.get(), &entry, 0) < 1) return false;
  Context* context = context_of(entry.op_context);
  if (context == nullptr) {
    // Somebody's write into this engine that was refused: its sender is told; here nothing is lost.
    log::debug("fabric '{}': an incoming operation failed: {}", capabilities_.fabric, ofi_text(entry.err));
    return false;
  }
  const bool wanted = context->state == Context::State::posted;
  completion = {.kind = Completion::Kind::failed,
                .refused = is_refusal(entry.err),
                .error = entry.err,
                .cookie = context->cookie};
  free_context(context);
  return wanted;
}

// What is under way on a path that has lost its connection may never be reported.
void OfiFabric::give_up(PeerId peer) {
  Slot& slot = slots_[peer];
  slot.given_up = true;
  for (Context& context : contexts_) {
    if (context.path != peer || context.state != Context::State::posted) continue;
    context.state = Context::State::reported;
    failed_.push_back({.kind = Completion::Kind::failed, .error = kBroken, .cookie = context.cookie});
  }
}

void OfiFabric::look_around() {
  paths_->look();
  for (PeerId peer = 0; peer < slots_.size(); ++peer) {
    Slot& slot = slots_[peer];
    if (!slot.path) continue;
    if (slot.joining && slot.path->state() != OfiPath::State::joining) {
      slot.joining = false;
      --joining_;
    }
    if (slot.path->state() == OfiPath::State::broken && !slot.given_up) give_up(peer);
  }
}

// The queue is empty: nothing in it refers to them any more.
void OfiFabric::free_orphans() {
  for (Context& context : contexts_) {
    if (context.state == Context::State::orphaned) free_context(&context);
  }
}

std::size_t OfiFabric::poll(std::span<Completion> completions) {
  std::size_t count = 0;
  if (!queue_) return 0;
  constexpr std::size_t kBatch = 32;
  fi_cq_data_entry entries[kBatch];
  while (count < completions.size()) {
    const ssize_t got = fi_cq_read(queue_.get(), entries, std::min(kBatch, completions.size() - count));
    if (got == -FI_EAVAIL) {
      if (report_failed(completions[count])) ++count;
      continue;
    }
    if (got == -FI_EAGAIN && orphans_ != 0) free_orphans();
    if (got <= 0) break;
    for (ssize_t i = 0; i < got; ++i) {
      if ((entries[i].flags & FI_REMOTE_CQ_DATA) != 0) {
        completions[count++] = {.kind = Completion::Kind::arrived,
                                .immediate = static_cast<std::uint32_t>(entries[i].data)};
      } else if (Context* context = context_of(entries[i].op_context)) {
        if (context->state == Context::State::posted) completions[count++] = {.cookie = context->cookie};
        free_context(context);
      }
    }
  }
  // After what libfabric has to say of them itself.
  if (joining_ != 0 || ++polls_ % kPollsPerLook == 0) look_around();
  while (!failed_.empty() && count < completions.size()) {
    completions[count++] = failed_.back();
    failed_.pop_back();
  }
  return count;
}

void OfiFabric::close() {
  for (Slot& slot : slots_) slot = {};
  paths_.reset();
  queue_.reset();
}

}  // namespace

Result<std::shared_ptr<Fabric>> open_ofi_fabric(const std::string& provider, const std::string& shown_name,
                                                const FabricOptions& options) {
  return OfiFabric::open(provider, shown_name, options);
}

FabricReport probe_ofi_provider(const std::string& provider, const std::string& shown_name,
                                const std::string& host) {
  FabricReport report{.name = shown_name};
  auto info = find_ofi_provider(provider, host);
  if (!info) {
    report.detail = info.error().message;
    return report;
  }
  const fi_info* found = info->get();
  if (found->ep_attr->type == FI_EP_MSG) {
    if (auto ok = check_loopback(host); !ok) {
      report.detail = ok.error().message;
      return report;
    }
  }
  report.usable = true;
  report.detail = fmt::format("libfabric {}, domain {}, {} endpoints, {} addresses",
                              found->fabric_attr->prov_name != nullptr ? found->fabric_attr->prov_name : "?",
                              found->domain_attr->name != nullptr ? found->domain_attr->name : "?",
                              found->ep_attr->type == FI_EP_MSG ? "connected" : "datagram",
                              (found->domain_attr->mr_mode & FI_MR_VIRT_ADDR) != 0 ? "virtual" : "offset");
  return report;
}

}  // namespace switchyard::fabric
