// What a device says beside its completions: that there are some, that its port went down or came back, that
// a queue has failed. Also the descriptor that a rail sleeps on. Driven by the rail's thread; reading is one
// system call where nothing has happened.
#pragma once

#include <memory>
#include <string>

#include "fabric/verbs_device.h"

namespace switchyard::fabric {

class VerbsWatch {
 public:
  VerbsWatch() = default;
  // `host` is the address that the port was chosen by. Errors: exhausted, io.
  static Result<std::unique_ptr<VerbsWatch>> open(std::shared_ptr<VerbsDevice> device, std::string host);
  ~VerbsWatch();
  VerbsWatch(const VerbsWatch&) = delete;
  VerbsWatch& operator=(const VerbsWatch&) = delete;

  // Readable when there is a completion of a queue that was armed, or something to read().
  int descriptor() const { return descriptor_; }
  ibv_comp_channel* channel() const { return channel_.get(); }

  // Takes what has come, if anything. A queue pair that is said to have failed is stopped.
  void read();
  // Takes what says that `queue` has completions; false where nothing did.
  bool take_bell(ibv_cq* queue);

  bool port_is_up() const { return port_is_up_; }
  // Why the whole rail is lost, or null.
  const char* loss() const { return loss_; }

 private:
  void take(const ibv_async_event& event);
  void check_port();

  std::shared_ptr<VerbsDevice> device_;
  std::string host_;
  VerbsHandle<ibv_comp_channel> channel_{nullptr, nullptr};
  int descriptor_ = -1;
  bool port_is_up_ = true;
  const char* loss_ = nullptr;
};

}  // namespace switchyard::fabric
