// Whether an element is on screen or near it: one observer for all.
import { useEffect, useState } from "./lib.js";

const NEAR = "400px 0px";
const listeners = new WeakMap();
const observer = new IntersectionObserver((entries) => {
  for (const entry of entries) listeners.get(entry.target)?.(entry.isIntersecting);
}, { rootMargin: NEAR });

/** True while the element of `ref` is within 400 px of the window. */
export function useVisible(ref) {
  const [visible, setVisible] = useState(false);
  useEffect(() => {
    const element = ref.current;
    listeners.set(element, setVisible);
    observer.observe(element);
    return () => {
      observer.unobserve(element);
      listeners.delete(element);
    };
  }, []);
  return visible;
}
